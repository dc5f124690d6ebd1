"""The reader of graphs: what it reads is what runs, and the size of a file bounds the work (pytest ends what hangs)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.onnx_graphs import analysed, graph, signature_of

from inferd.backends.onnx.independence.proof import analyse_model
from inferd.backends.onnx.independence.reader import read_program
from inferd.backends.onnx.messages import Malformed, MemorySource

MODEL = graph("z = Relu(x)\n y = Softmax<axis=1>(z)", domains="")
BYTES = MODEL.SerializeToString()


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    length, head = len(content), bytearray()
    while True:
        head.append((length & 0x7F) | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes([number << 3 | 2]) + bytes(head) + content


def finding(content: bytes):
    return analyse_model(lambda: MemorySource(content), signature_of(MODEL))


def test_nodes_attributes_and_elements_are_read() -> None:
    model = graph("s = Reshape(x,t)\n y = Softmax<axis=-1>(s)", t=[0, -1])
    program = read_program(MemorySource(model.SerializeToString()))
    reshape, softmax = program.graph.nodes
    assert (reshape.operator, reshape.inputs, reshape.outputs) == ("Reshape", ("x", "t"), ("s",))
    assert softmax.attributes == {"axis": -1}
    assert program.graph.inputs[0].dims == ("n", 4, 6)
    (tensor,) = program.graph.tensors
    assert tensor.elements is not None
    assert tensor.elements.tolist() == [0, -1]
    assert program.opsets[""] == 20


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.int64, np.bool_])
def test_elements_in_both_forms_agree(kind: type) -> None:
    array = np.array([[1, 0], [1, 1]], kind)
    raw = numpy_helper.from_array(array, "t")
    typed = helper.make_tensor("t", raw.data_type, array.shape, array.reshape(-1).tolist())
    for tensor in (raw, typed):
        model = graph("y = Relu(x)")
        model.graph.initializer.append(tensor)
        (found,) = read_program(MemorySource(model.SerializeToString())).graph.tensors
        assert found.elements is not None
        np.testing.assert_array_equal(found.elements, array)


def test_large_and_external_tensors_have_no_elements() -> None:
    model = graph("y = Relu(x)", big=np.zeros(300, np.int64), outside=np.zeros(3, np.int64))
    model.graph.initializer[1].data_location = TensorProto.EXTERNAL
    tensors = read_program(MemorySource(model.SerializeToString())).graph.tensors
    assert [tensor.elements for tensor in tensors] == [None, None]


def test_a_second_graph_is_refused() -> None:
    """A protobuf parser would merge the two."""
    other = field(7, field(1, field(4, b"Identity") + field(1, b"y") + field(2, b"q")))
    assert finding(BYTES).proven
    assert "2 graphs" in str(finding(BYTES + other))


def test_one_version_of_an_operator_set_may_be_written_twice() -> None:
    """skl2onnx does. Two versions could be two graphs."""
    model = graph("z = Relu(x)\n y = Softmax<axis=1>(z)", domains="")
    model.opset_import.append(helper.make_opsetid("", 20))
    assert finding(model.SerializeToString()).proven
    model.opset_import.append(helper.make_opsetid("ai.onnx", 12))
    assert "two versions of one operator set" in str(finding(model.SerializeToString()))


def test_a_field_of_another_wire_type_is_none() -> None:
    """A parser skips a field `op_type` of four fixed bytes; it must not rename the node."""
    node = field(1, b"x") + field(2, b"y") + field(4, b"CumSum") + bytes([4 << 3 | 5]) + b"Relu"
    nodes = read_program(MemorySource(field(7, field(1, node)))).graph.nodes
    assert nodes[0].operator == "CumSum"


def test_an_attribute_given_twice_is_refused() -> None:
    model = graph("y = Softmax<axis=1>(x)")
    model.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
    assert "two attributes 'axis'" in str(analysed(model))


def test_an_attribute_too_long_to_read_is_not_its_default() -> None:
    model = graph("y = Transpose<perm=[0,2,1]>(x)")
    del model.graph.node[0].attribute[:]
    model.graph.node[0].attribute.append(helper.make_attribute("perm", [0] * 5000))
    assert "too long to read" in str(analysed(model))


def test_two_values_of_one_name_are_refused() -> None:
    model = graph("y = Relu(x)")
    model.graph.node.append(helper.make_node("CumSum", ["x", "x"], ["y"]))
    assert "two values are called 'y'" in str(analysed(model))


def test_a_value_that_no_node_makes_is_refused() -> None:
    assert "no earlier node makes 'q'" in str(analysed(graph("y = Relu(q)")))


def test_functions_that_call_each_other_end() -> None:
    functions = "".join(
        f'<domain: "my", opset_import: ["my" : 1]> f{i} (a) => (c) {{ b = my.f{i + 1}(a)\n c = my.f{i + 1}(b) }}\n'
        for i in range(40)
    )
    model = graph("y = my.f0(x)", domains='"my" : 1', functions=functions)
    assert not analysed(model).proven


@pytest.mark.parametrize(
    "content",
    [
        field(7, field(5, field(1, b"\x01" * 900_000) + field(8, b"t"))),
        field(7, field(11, field(1, b"x") + field(2, field(1, field(2, field(1, b"\x08\x02") * 200_000))))),
        field(7, field(1, field(4, b"Relu")) * 60_000),
        field(7, field(1, field(5, field(1, b"a") + b"\x40\x01" * 400_000))),
    ],
    ids=["dimensions of a tensor", "dimensions of an input", "nodes", "integers of an attribute"],
)
def test_large_descriptions_are_refused(content: bytes) -> None:
    assert not finding(content).proven


def test_sizes_that_grow_without_end_are_refused() -> None:
    body = "\n".join(f"s{i + 1} = Add(s{i},s{i})" for i in range(200))
    wide = graph(
        f"s = Shape(x)\n s0 = Mul(s,s)\n {body}\n r = Reshape(x,s200)\n y = Relu(r)", inputs="float[n,a,b,c,d,e] x"
    )
    assert not analysed(wide).proven


def test_numbers_that_wrap_around_are_not_followed() -> None:
    """2**63 * 2 is 0 in int64: a slice up to it takes nothing."""
    body = "s = Shape<start=0,end=1>(x)\n a = Mul(s,k)\n b = Mul(a,k)\n y = Slice(x,z,b)"
    assert not analysed(graph(body, inputs="float[n,5] x", k=[2**32], z=[0])).proven


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(BYTES) - 1), st.integers(0, 255))
def test_any_byte_may_be_wrong(position: int, byte: int) -> None:
    changed = bytearray(BYTES)
    changed[position] = byte
    finding(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(BYTES)))
def test_any_cut_is_survived(position: int) -> None:
    finding(BYTES[:position])


def test_malformed_is_reported() -> None:
    with pytest.raises(Malformed):
        read_program(MemorySource(b""))
