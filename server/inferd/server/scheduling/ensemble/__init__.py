"""Runs requests through the steps of an ensemble.

step_graph   the checked graph of steps and tensors
scheduler    the scheduler of an ensemble: admission, bounds, drain
run          one request and its steps
"""
