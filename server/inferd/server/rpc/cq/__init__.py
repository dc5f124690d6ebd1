"""The fast transport: gRPC's C core driven directly, without grpcio's Python server layer.

grpcio's own servers spend most of a small request's time in thread hops and condition variables of their Python
layer, not in the C core. Here one thread polls the core's completion queue and calls each event's tag; a call costs
three batches of core operations (its message, its close, its answer) and no task, future or pool thread.

    usable      whether the installed grpcio is one that this was tested on
    transport   the Transport: binds, accepts, dispatches, stops
    calls       the unary calls and streams that it delivers

The core's Python binding, `grpc._cython.cygrpc`, is private to grpcio: it is touched in this package only, and the
public transport (`rpc.public`) serves wherever `usable` says no.
"""
