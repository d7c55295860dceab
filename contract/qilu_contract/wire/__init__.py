"""The MQTT contract: topics, payloads, commands, marks, the run's clock."""
