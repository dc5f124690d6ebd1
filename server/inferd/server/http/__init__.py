"""The HTTP port: metrics and health pages, and the REST APIs where their libraries are installed.

`composition.http_port` chooses one of two implementations; `composition.http_routes` builds the REST application.

server, message                     the small port, on the standard library: pages only
rest_server, bounded_server, connection    the port with REST: uvicorn, with its own bounds on slow clients
infer_routes, known_heads, http_call, infer_turns   requests that infer, from whole requests to lists of calls
pages, docs_page                    /metrics, /healthz, /readyz; /docs
error_boundary, admission, exchange, method_call, reply, status_codes, content_coding, workers
                                    shared by the REST handlers of all protocols (`protocols.oip.rest`,
                                    `protocols.tfs.rest`)
json                                JSON bodies to arrays and back, long texts in pieces
"""
