"""The fast transport: gRPC's C core driven directly, without grpcio's Python server layer.

grpcio's own servers spend most of a small request's time in thread hops and condition variables of their Python
layer, not in the C core. Here one thread polls the core's completion queue and handles each event by its tag; a unary
call costs two batches of core operations (its message; its answer with its close), three where it waits for long, and
no task, future or pool thread.

    usable      whether the installed grpcio is one that this was tested on
    transport   the Transport: binds, accepts, dispatches, stops
    call        what unary_call and stream_call have in common: what it delivers
    statuses    errors on their way out, several at once
    sweep       ends calls whose message does not come
    unwatched   calls that wait for their answer, and when their clients are watched

The core's Python binding, `grpc._cython.cygrpc`, is private to grpcio: it is touched in this package only, and the
public transport (`rpc.public`) serves wherever `usable` says no.
"""
