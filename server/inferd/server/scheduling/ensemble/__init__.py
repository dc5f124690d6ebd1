"""How a request goes through the steps of an ensemble."""
