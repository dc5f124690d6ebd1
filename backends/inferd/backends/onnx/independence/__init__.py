"""Static proof that the rows of an ONNX model's batch are independent.

graph.py       what the analysis needs of a graph
reader.py      reads it from a model's bytes, without the package `onnx`
node.py        one node with the values of its inputs, and the table of operators
elementwise.py, normalise.py, products.py, layout.py, recurrent.py, tables.py    the operators
folding.py     elements of shapes that are known
walker.py      the walk over a graph: from the values of its inputs to those of its outputs
"""
