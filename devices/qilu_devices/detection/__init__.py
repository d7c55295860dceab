"""Fault detection in exports: scoring of detectors, and baseline detectors for comparison."""
