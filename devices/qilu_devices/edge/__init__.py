"""Simulated Sparkplug edge nodes."""
