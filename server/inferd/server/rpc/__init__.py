"""The gRPC edge: protocol in, protocol out.

transport   the seam: calls of bytes in, bytes out            public     its implementation on grpcio's public API
services    which method is answered by whom                  inference  the journey of a request, for every protocol
gate        who may do what                                   status     what a refusal looks like
"""
