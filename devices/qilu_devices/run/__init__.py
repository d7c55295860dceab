"""Runs of a simulation: clock, registration, edge nodes, manifest."""
