"""Transport faults: what happens to readings on their way."""
