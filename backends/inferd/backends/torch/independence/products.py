"""Matrix products, attention and recurrent networks."""

from __future__ import annotations

from inferd.backends.independence import layout
from inferd.backends.independence import operators as rules
from inferd.backends.independence.sizes import MixesRows, NotUnderstood, size_of
from inferd.backends.independence.values import CONST, ROWS, Value, by_row, data, fixed, like, shaped
from inferd.backends.torch.independence.call import AtenTable, Call, Number
from inferd.backends.torch.independence.memory import TensorRef

TABLE = AtenTable()


@TABLE.add("matmul mm bmm mv dot")
def matmul(call: Call) -> Value:
    a, b = call.operands
    return rules.matmul(a, b)


@TABLE.add("addmm baddbmm addmv")
def addmm(call: Call) -> Value:
    added, a, b = call.operands[:3]
    result = rules.matmul(a, b)
    if len(shaped(added)) > len(shaped(result)):
        raise NotUnderstood("adds a tensor of higher rank")
    return rules.elementwise([added, result, *call.operands[3:]])


@TABLE.add("linear")
def linear(call: Call) -> Value:
    weight, bias = call.tensor("weight"), call.optional("bias")
    fixed(weight, "a weight")
    fixed(bias, "a bias")
    if len(shaped(weight)) != 2 or (bias is not None and len(shaped(bias)) > 1):
        raise NotUnderstood("has a weight that is no matrix")
    result = rules.matmul(call.x, layout.transposed(weight, [1, 0]))
    return result if bias is None else rules.elementwise([result, bias])


@TABLE.add("quantized::linear quantized::linear_relu")
def quantized_linear(call: Call) -> Value:
    shape = shaped(data(call.x))
    if len(shape) < 2:
        raise NotUnderstood("multiplies a vector")
    return rules.resized(call.x, {-1: call.fresh()}, "sums")


@TABLE.add("einsum")
def einsum(call: Call) -> Value:
    equation = call.arguments.get("equation")
    if not isinstance(equation, str):
        raise NotUnderstood("sums by an equation that is not known")
    return rules.einsum(equation, call.tensors("tensors"))


@TABLE.add("outer ger")
def outer(call: Call) -> Value:
    a, b = call.operands
    return rules.matmul(layout.reshaped(a, [*shaped(a), size_of(1)]), layout.reshaped(b, [size_of(1), *shaped(b)]))


@TABLE.add("scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu")
def attention(call: Call) -> list[Value]:
    query, key, value = call.tensor("query"), call.tensor("key"), call.tensor("value")
    if call.arguments.get("dropout_p"):
        raise MixesRows("drops elements at random")
    mask = call.optional("attn_mask")
    rank = len(shaped(data(query)))
    if rank < 2 or len(shaped(data(key))) != rank or len(shaped(data(value))) != rank:
        raise NotUnderstood("has operands of different rank")
    if call.flag("enable_gqa"):
        for part in (query, key, value):
            by_row(part, "an operand")
        if mask is not None or rank != 4:
            raise NotUnderstood("has groups of heads and a mask")
        return [like(query, [*shaped(query)[:-1], shaped(value)[-1]])]
    scores = rules.matmul(query, layout.transposed(key, [*range(rank - 2), rank - 1, rank - 2]))
    if mask is not None:
        # The mask has the shape of the scores, or one that is broadcast to it.
        if len(shaped(mask)) > rank:
            raise NotUnderstood("has a mask of higher rank than its operands")
        scores = rules.elementwise([scores, mask])
    if call.flag("is_causal"):
        scores = rules.along(scores, [-1, -2], "hides elements by their position")
    result = rules.matmul(rules.along(scores, [-1], "normalises"), value)
    return [result, *[rules.reduced(scores, [-1], keep=False)] * (call.results - 1)]


@TABLE.add("_native_multi_head_attention")
def native_attention(call: Call) -> list[Value]:
    query = by_row(call.tensor("query"), "an operand")
    for name in ("key", "value"):
        by_row(call.tensor(name), "an operand")
    for name in ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias"):
        fixed(call.optional(name), "a weight")
    _padding(call, "mask")
    shape = shaped(query)
    if len(shape) != 3:
        raise NotUnderstood("reads a sequence that has not three axes")
    weights = like(query, [shape[0], call.fresh(), call.fresh(), *([] if _averaged(call) else [call.fresh()])])
    return [like(query, shape), *[weights] * (call.results - 1)]


def _averaged(call: Call) -> bool:
    return bool(call.arguments.get("average_attn_weights", True))


def _padding(call: Call, name: str) -> None:
    """A mask of [rows, steps], or one of [steps, steps] that is the same for all rows."""
    mask = call.optional(name)
    if mask is None:
        return
    kind = call.arguments.get("mask_type")
    if data(mask).kind is CONST and kind == 0 and len(shaped(mask)) == 2:
        return
    if mask.kind is ROWS and kind == 1 and len(shaped(by_row(mask, "the mask"))) == 2:
        return
    raise NotUnderstood("has a mask of a kind that is not known")


@TABLE.add("_transformer_encoder_layer_fwd")
def encoder_layer(call: Call) -> Value:
    source = by_row(call.tensor("src"), "the input")
    if len(shaped(source)) != 3:
        raise NotUnderstood("reads a sequence that has not three axes")
    for name, found in call.arguments.items():
        if name not in ("src", "mask") and isinstance(found, TensorRef | Number):
            fixed(found.value, "a weight")
    _padding(call, "mask")
    return source


@TABLE.add("lstm gru rnn_tanh rnn_relu")
def recurrent(call: Call) -> list[Value]:
    if call.overload != "input":
        raise NotUnderstood("reads packed sequences")
    if call.flag("train") and call.arguments.get("dropout"):
        raise MixesRows("is random in training mode")
    x = data(call.tensor("input"))
    for weight in call.tensors("params"):
        fixed(weight, "a weight")
    states = call.tensors("hx") if call.operator == "lstm" else [call.tensor("hx")]
    shape = shaped(x)
    if len(shape) != 3:
        raise NotUnderstood("reads a sequence that has not three axes")
    if x.kind is not ROWS:
        raise NotUnderstood("reads a sequence that is the same for all rows")
    batch = 0 if call.flag("batch_first") else 1
    if x.axis != batch:
        raise MixesRows("has the steps of time on the batch axis")
    for state in states:
        if (
            data(state).kind is not ROWS
            or len(shaped(state)) != 3
            or state.axis != 1
            or state.layout[1:] != x.layout[1:]
        ):
            raise MixesRows("has a first state that is not one for each row")
    directions = 2 if call.flag("bidirectional") else 1
    width = shaped(states[0])[-1] * directions
    return [like(x, [*shape[:2], width]), *[like(state, shaped(state)) for state in states]]


@TABLE.add("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
def cell(call: Call) -> list[Value]:
    x = by_row(call.tensor("input"), "the input")
    states = call.tensors("hx") if call.operator == "lstm_cell" else [call.tensor("hx")]
    for name in ("w_ih", "w_hh", "b_ih", "b_hh"):
        fixed(call.optional(name), "a weight")
    for state in states:
        if len(shaped(by_row(state, "a state"))) != 2 or len(shaped(x)) != 2:
            raise NotUnderstood("reads what is no table of rows and columns")
    return [like(state, shaped(state)) for state in states]


@TABLE.add("cosine_similarity")
def cosine_similarity(call: Call) -> Value:
    both = rules.elementwise([call.tensor("x1"), call.tensor("x2")])
    return rules.reduced(both, [call.integer("dim")], keep=False)
