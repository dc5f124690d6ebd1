"""The protocols: each package translates one protocol to inference, lifecycle and errors, and back.

native    inferd.v1
oip       the Open Inference Protocol in Triton's superset, over gRPC and REST
tfs       TensorFlow Serving's API, over gRPC and REST
common    shared by all of them: error boundary, streams, health, reflection
"""
