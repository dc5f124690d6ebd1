"""How requests share batches: one bounded queue per servable and signature, instances that take what waits.

request                          one request and the promise of exactly one outcome
scheduler                        the facade: one per servable
batcher, queue, bucket, watcher  admission, which requests may share a batch, and their deadlines
crowd, outlook, refusals         who is not taken, or kept, and what they are told
forming, company, cost           which batch goes next, when, and how large
batch, buffers, padding, oversize, execution, instances, overlap      running and splitting batches
inline, express                  short models, and such as are alone, on the front end's own loop
sample, proof, rehearsal         what a model does before it serves: whether it may be batched at all
wiring, pipeline, pipeline_run   ensembles: requests that go through several models
observer                         who is told
"""
