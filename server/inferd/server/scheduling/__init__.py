"""How requests share batches: one bounded queue per servable and signature, instances that take what waits.

request                          one request and the promise of exactly one outcome
scheduler                        the facade: one per servable
batcher, queue, bucket           admission, and which requests may share a batch
forming, batch, buffers, padding, oversize, execution, instances      forming, running, splitting
proof, sample                    whether a model may be batched at all
observer                         who is told
"""
