"""Monitoring data for people: counts of places, alarms, live readings, events."""
