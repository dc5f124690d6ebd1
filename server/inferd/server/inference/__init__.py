"""The journey of a request, for every protocol and transport. Nothing here knows gRPC, HTTP or a message class.

service          from calls to requests in a scheduler's queue
finish           from outputs and errors to answers: encoded, counted, logged, sent
plan             what is known of a request before its data is looked at
request_groups   requests of one form that came together
interfaces       calls and codecs, as the rooms above provide them
inflight         bounds on calls and bytes
failures, failure_log    errors to status and text, and one log line for each failed request
trace            which trace a call belongs to
shared_memory    system shared memory that clients have registered
"""
