"""Static proof that the rows of a SavedModel's batch are independent.

program.py    the graph and its functions, as TensorFlow's own protobuf classes and register of operators describe them
items.py      what an edge of the graph may carry besides a tensor: handles of variables and tables, lists, ragged rows
node.py       one node with the items of its inputs
elementwise.py, along.py, products.py, images.py, layout.py, gather.py, text.py, lists.py, state.py
              the operators
folding.py    elements of shapes that are known
slices.py     what a strided slice does to each axis
control.py    calls of functions, branches and loops; switches.py: the branches of TensorFlow 1
checkpoint.py shapes that a checkpoint holds for the graph's variables
walker.py     the walk over a graph: from the values of its inputs to those of its outputs
proof.py      from a MetaGraphDef to the finding
"""
