"""What operators see: metrics, logs, memory."""
