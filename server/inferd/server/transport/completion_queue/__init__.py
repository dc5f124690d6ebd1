"""The default transport: drives gRPC's C core directly, without grpcio's Python server layer.

grpcio's own servers spend most of a small request's time in thread switches and condition variables of their Python
layer, not in the C core. Here one thread polls the core's completion queue and handles each event by its tag. A unary
call costs two batches of core operations (receive the message; send the answer and receive the close), or three when it
waits longer than `cancel_watch.PATIENCE`, and no task, future or pool thread.

    compatibility     whether this transport was tested with the installed grpcio
    transport         the Transport: binds, accepts, passes the calls of a turn to handlers, stops
    call              what unary_call and stream_call have in common
    unary_call, stream_call   the two kinds of calls
    statuses          failures that are sent together at the end of a turn
    receive_timeout   ends calls whose message does not arrive
    cancel_watch      watches the clients of calls that wait long for their answer

The core's Python binding, `grpc._cython.cygrpc`, is private to grpcio: only this package uses it. The public transport
(`transport.grpc_aio`) serves where `compatibility` finds that it cannot be used.
"""
