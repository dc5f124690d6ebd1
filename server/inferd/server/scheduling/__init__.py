"""Queues, batches and their execution: one bounded queue per servable and signature, and instances that run its
batches.

request              one request, which gets exactly one outcome
scheduler            the entry point: one Scheduler per servable
batcher              admits requests to the queues and passes batches to idle workers
rejection            the reasons, figures and texts of refusals
queue, bucket        the waiting requests, and which of them may share a batch
batch_former         chooses the next batch, its size, and when it is ready
execution, batch     runs a batch: joins inputs, splits outputs, answers requests
inline, inline_executor    runs short batches on the loop of a front end
instances, worker_slot, double_buffer, buffers, padding    the threads and the memory of an instance
deadline_expirer     answers requests that expire in the queue
request_splitter     splits requests with more rows than a batch holds
policies             fair share, deadline admission, linger, cost model, strategy
qualification        warm-up, samples and probe: whether a model may serve, and be batched
ensemble             runs requests through several models
observer             the interface for counting batches and dropped requests
"""
