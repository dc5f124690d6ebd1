"""Converts tensors between numpy and the wire. Server and client share this code; no other code encodes tensors.

dtypes          element types: their names, numbers and numpy types
tensors         arrays to and from raw little-endian bytes
message_forms   reads messages that repeat an earlier one by comparison
native          the messages of inferd.v1.PredictService, decoded without copies (values, recognise, compose, fallback)
oip, tfs        the same for the Open Inference Protocol and for TensorFlow Serving
reader, varints protobuf's wire format
"""
