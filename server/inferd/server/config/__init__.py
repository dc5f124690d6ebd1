"""Settings: the keys (`schema`), units of times and sizes (`units`), and where values are read from (`load`)."""
