"""JSON bodies to arrays and back. Long texts are read and written in pieces, so that no parse holds the interpreter for
long and the gRPC port's threads keep running.

text        JSON text to values and back: the entry points
pieces      parsing of long texts in pieces
numbers     long lists of numbers in a long text, straight to arrays
arrays      JSON values to arrays of a known element type
messages    protobuf messages as JSON values
"""
