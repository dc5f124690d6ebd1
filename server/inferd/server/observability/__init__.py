"""What operators see: metrics and logs.

series, metrics, model_metrics, state_metrics     what is counted, and by whom
events, logs, rate_limit                          that something happened, where it is written, and how often
"""
