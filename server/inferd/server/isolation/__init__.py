"""Models in worker processes of their own: a proxy that is a Backend, Model and Instance for everything above.

proxy        the Backend, Model and Instance of the server's side
process      one worker process: started, watched, ended; what became of it in words
output       what the worker writes, line by line into the server's log
worker       the other side: the entry point of the process, and the same backend code as in the server
channel      messages between both, descriptors beside them
arena        shared memory for tensors
tensors      arrays into an arena and out again
description  requests, signatures, traits and errors as plain values
"""
