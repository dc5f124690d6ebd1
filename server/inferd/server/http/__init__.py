"""The HTTP port: metrics and health, and the REST APIs where their libraries are installed.

choice            which of both serves               pages    /metrics, /healthz, /readyz
server, message   the small port, on the standard library
rest_server, app, connection, encrypted              the port with REST: uvicorn and FastAPI
edge, entrance, exchange, call, work                 what all REST handlers share
oip_*, tfs_*      Triton's REST API and TensorFlow Serving's
json_*            long JSON texts and numbers, in pieces
"""
