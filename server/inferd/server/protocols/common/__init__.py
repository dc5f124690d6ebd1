"""What every protocol's edge shares: the error boundary, streams, health, reflection."""
