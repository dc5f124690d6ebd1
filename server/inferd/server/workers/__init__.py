"""`server.workers` above 1: several processes serve on the same ports. A supervisor process starts and watches them.

supervisor     runs in the process that was started; holds the ports, starts and replaces the workers, decides when a
               new version may serve, keeps the operators' overrides, adds up the metrics. It answers no requests.
worker_agent   runs in each worker: the worker's end of the link to the supervisor
"""
