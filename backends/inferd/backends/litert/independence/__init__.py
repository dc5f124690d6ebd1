"""Static proof that the rows of a LiteRT model's batch are independent.

node.py        one operator with the values of its inputs, and the table's type
elementwise.py, products.py, layout.py    the operators
folding.py     elements of shapes that are known
walker.py      the walk over a subgraph: from the values of its inputs to those of its outputs
proof.py       from a model to the finding
"""
