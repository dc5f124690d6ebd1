"""What is served, and how that changes.

reading     layout, scan, tree, settle, source, file_events     the disk, as lists of versions
settings    settings, pbtxt, text_format, declared              what a model's directory says of it
deciding    version_policy, transition_policy, desired, labels, overrides, retry      pure, or one small state each
doing       mailbox, conductor, closer, fingerprints, commands, loader, pool, placement, memory     one step at a time
serving     manager, board, serving_map, servable, check        what requests touch
telling     state, events, record, readiness, refusal, inspect
"""
