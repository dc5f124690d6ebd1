"""Variables and tables that are only read: they are the same for all rows.

What writes to one ends the analysis (see EFFECTS): then nothing is known of what is read.
"""

from __future__ import annotations

from inferd.backends.independence import operators as rules
from inferd.backends.independence.elements import known
from inferd.backends.independence.sizes import NotUnderstood, size_of
from inferd.backends.independence.values import Shape, Value, constant, fixed, shaped
from inferd.backends.tensorflow.independence.items import Handle, Item
from inferd.backends.tensorflow.independence.node import Node, new_table

TABLE = new_table()
_VARIABLE = "variable"
VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
_TABLES = ("HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2")

# Operators with effects that do not matter: they read, check, print, or call functions that are looked at themselves.
_READS = """
    VarHandleOp ReadVariableOp VariableShape VarIsInitializedOp DisableCopyOnRead Variable VariableV2
    ResourceGather ResourceGatherNd HashTable HashTableV2 MutableHashTable MutableHashTableV2 LookupTableFind
    LookupTableFindV2 LookupTableSize LookupTableSizeV2 GuaranteeConst
    Assert CheckNumerics CheckNumericsV2 Print PrintV2 StatefulPartitionedCall While If Case
    RandomGamma RandomPoisson RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
    TruncatedNormal ParameterizedTruncatedNormal Multinomial RandomCrop
"""
EFFECTS = frozenset(_READS.split())


def _shape(node: Node) -> Shape | None:
    """The shape that a variable's node gives. A size that is not fixed there may change."""
    sizes = node.shape("shape")
    if sizes is None or any(size < 0 for size in sizes):
        return None
    return tuple(size_of(size) for size in sizes)


@TABLE.add("VarHandleOp")
def variable_handle(node: Node) -> Item:
    identity = f"{node.string('container')}/{node.string('shared_name') or node.proto.name}"
    return Handle(_VARIABLE, identity, _shape(node))


@TABLE.add("ReadVariableOp")
def read_variable(node: Node) -> Value:
    handle = node.handle(0)
    if handle.kind != _VARIABLE:
        raise NotUnderstood("reads what is no variable")
    return constant(handle.shape)


@TABLE.add("Variable", "VariableV2")
def old_variable(node: Node) -> Value:
    """A variable of TensorFlow 1: the tensor itself."""
    return constant(_shape(node))


@TABLE.add("VarIsInitializedOp", "LookupTableSizeV2", "LookupTableSize")
def fact_of_handle(node: Node) -> Value:
    node.handle(0)
    return constant([])


@TABLE.add("VariableShape")
def variable_shape(node: Node) -> Value:
    shape = node.handle(0).shape
    return constant(None) if shape is None else known([size.number for size in shape])


@TABLE.add(*_TABLES)
def table_handle(node: Node) -> Item:
    identity = f"{node.string('container')}/{node.string('shared_name') or node.proto.name}"
    return Handle(node.operator, identity)


@TABLE.add("LookupTableFindV2", "LookupTableFind")
def find(node: Node) -> Value:
    """The value that belongs to each key. Tables with vectors as values are made by other operators."""
    if node.handle(0).kind not in _TABLES:
        raise NotUnderstood("looks up in a table that is not followed")
    fixed(node.input(2), "a value for keys that are missing")
    if shaped(node.input(2)):
        raise NotUnderstood("has a vector for keys that are missing")
    return rules.elementwise([node.input(1)])


@TABLE.add("Assert", "PrintV2", "NoOp", "DisableCopyOnRead")
def nothing(_node: Node) -> list[Item]:
    return []


@TABLE.add("Print", "GuaranteeConst")
def unchanged(node: Node) -> Item:
    return node.item(0)
