"""The fast transport: gRPC's C core driven directly, without grpcio's Python server layer.

grpcio's own servers spend most of a small request's time in thread hops and condition variables of their Python
layer, not in the C core. Here one thread polls the core's completion queue and handles each event by its tag; a unary
call costs two batches of core operations (its message; its answer with its close), three where it waits for long, and
no task, future or pool thread.

    compatibility     whether the installed grpcio is one on which this was tested
    transport         the Transport: binds, accepts, hands over the calls of a turn, stops
    call              what unary_call and stream_call have in common
    statuses          errors on their way out, several at once
    receive_timeout   ends calls whose message does not come
    cancel_watch      calls that wait for their answer, and when their clients are watched

The core's Python binding, `grpc._cython.cygrpc`, is private to grpcio: it is touched in this package only, and the
public transport (`transport.grpc_aio`) serves wherever `compatibility` says no.
"""
