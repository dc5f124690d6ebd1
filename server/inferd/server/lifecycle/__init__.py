"""What is served, and how that changes.

here          the manager, which requests and operators call; the published state, readiness, refusals in words
reconcile     events in one mailbox, the desired state, the next action, and the writers of the state
loading       one version: opened, checked, warmed up, proven; later drained and closed
operations    what operators ask for, and the overrides that keep it
ensemble      models made of other models
resources     CPU threads and memory
"""
