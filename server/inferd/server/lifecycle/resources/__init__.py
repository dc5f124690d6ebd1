"""CPU threads and memory that models share."""
