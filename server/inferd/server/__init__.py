"""The server. Its floors, top to bottom (imports point down only; `make lint` checks that):

cli, app                        the command line; start order and shutdown order
composition                     the method table and the HTTP routes: which handler answers which method
protocols, workers              a folder for each protocol; several serving processes under a supervisor
transport, http                 the gRPC port and the HTTP port: bytes in, bytes out
inference                       the path of a request: decoded calls, groups, answers, bounds
access                          who calls, and what a caller may do
lifecycle, repository           what is served: reconciler, loading, servables; what lies on disk
compat                          readers of foreign configuration formats
isolation                       a model in a process of its own
scheduling, observability       how requests share batches; logs and metrics
config, errors                  settings; the error tree
"""

__version__ = "0.1.0"
