"""JSON bodies to arrays and back, long ones in pieces."""
