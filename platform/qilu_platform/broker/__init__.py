"""Edge nodes: their certificates, the broker's rules, commands."""
