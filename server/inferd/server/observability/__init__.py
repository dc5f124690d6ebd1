"""Metrics and logs.

series, metrics, model_metrics, state_metrics     the declared series, and the objects that count
events, logs, rate_limit                          logging an event, writing it, and limiting how often it is written
"""
