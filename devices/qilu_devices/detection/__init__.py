"""Detecting faults in an export: what a detector found is scored, and simple detectors to compare it with."""
