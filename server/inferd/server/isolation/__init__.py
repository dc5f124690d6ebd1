"""Models in worker processes of their own. The rest of the server uses them through the usual Backend, Model and
Instance interfaces.

proxy        Backend, Model and Instance in the server's process
process      starts, watches and ends one worker process; says in words how it ended
output       copies the worker's output, line by line, to the server's log
worker       the entry point of the worker process, which runs the same backend code as the server
channel      messages between both processes, with file descriptors
arena        shared memory for tensors
tensors      writes arrays to an arena and reads them from it
description  requests, signatures, traits and errors as plain values
"""
