"""Publishes stored readings to Kafka as well (`--also`), from a second spool."""
