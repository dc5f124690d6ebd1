"""The server. Its floors, top to bottom (imports point down only; `make lint` holds them):

app, cli                        composition root: builds everything, start order, shutdown order
rpc, http                       the edges: protocol in, protocol out
core                            what the edges share: the journey of a request, bounds, the gate
lifecycle                       what is served: source, policies, loader, manager, servable
isolation                       models in worker processes of their own
scheduling, observability       how requests share batches; what operators see
config, errors                  settings; the error tree
"""

__version__ = "0.1.0"
