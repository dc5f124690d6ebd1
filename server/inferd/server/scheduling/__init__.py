"""How requests share batches: one bounded queue per servable and signature, instances that take what waits.

request              one request and the promise of exactly one outcome
scheduler            the facade: one per servable
batcher              admission to the queues, and the hand-over of batches to idle workers
rejection            why a request is not taken: reason, figures, words
queue, bucket        what waits, and which requests may share a batch
batch_former         which batch goes next, when, and how large
execution, batch     running a batch: inputs joined, outputs split, requests answered
inline, inline_executor    short models on the front end's own loop
instances, worker_slot, double_buffer, buffers, padding    the threads and the memory of an instance
deadline_expirer     requests whose time runs out while they wait
request_splitter     requests with more rows than a batch holds
policies             decisions as parts without threads: fair shares, deadlines, lingering, cost, strategy
qualification        what a model does before it serves: whether it may be batched at all
ensemble             requests that go through several models
observer             counts batches and dropped requests
"""
