"""`server.workers` above 1: several serving processes on the same ports, under a supervisor that serves nothing.

supervisor   in the process that was started: ports, workers, agreements, wishes, totals
seat         in each worker: its end of the link, through which it is one of many
"""
