"""What travels over MQTT: topics, payloads, commands, marks, the run's clock."""
