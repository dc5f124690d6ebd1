"""The request pipeline, for every protocol and transport. This package imports neither gRPC, HTTP nor message classes.

service          from calls to requests in a scheduler's queue
finish           from outputs and errors to answers: encoded, counted, logged, sent
plan             what the server knows about a request before it reads the tensors' data
request_groups   requests of one form that arrived together
request_ids      the id of a request in logs, errors and answers
interfaces       the types of calls and codecs, which transport/ and protocols/ implement
inflight         bounds on calls and bytes
failures, failure_log    from errors to status and text; one log line for each failed request
trace            the trace that a call belongs to
shared_memory    system shared memory that clients have registered
"""
