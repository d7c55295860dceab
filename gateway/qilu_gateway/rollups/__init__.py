"""Roll-ups and alarms of what was made durable."""
