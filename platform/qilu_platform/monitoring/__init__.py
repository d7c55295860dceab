"""What people watch: counts of places, alarms, readings as they come, what happens."""
