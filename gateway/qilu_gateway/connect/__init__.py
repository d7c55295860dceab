"""Connections to the broker: sessions, STATE, topics."""
