"""Shared code that is not part of the contract: the MQTT connection, the HTTP server, secrets, files."""
