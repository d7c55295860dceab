"""Roll-ups and alarms, computed from durable readings."""
