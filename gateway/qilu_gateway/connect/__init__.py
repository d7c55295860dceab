"""Connections to the broker: sessions, STATE and topics."""
