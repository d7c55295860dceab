"""A run: its clock, its registration, its record."""
