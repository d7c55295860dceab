"""What several parts share that is no agreement: the MQTT connection, the HTTP server, secrets, files."""
