"""The gRPC method table and the HTTP routes, and the one way into both.

call_access      admit → decode → authorize → handle → audit, for every method
admitted_calls   calls whose end is reported, and streams whose caller is checked again
audit_fields     what the audit log shows of an admin request
grpc_methods     the method table
http_routes      the REST application       http_port   the HTTP port, with REST where its libraries are installed
"""
