"""Tensors between numpy and the wire: the only hand-written wire code, shared by server and client.

dtypes    element types: their names, numbers and numpy types
tensors   arrays to and from raw little-endian bytes
native    the messages of inferd.v1.PredictService, decoded without copies (values, recognise, compose, fallback)
"""
