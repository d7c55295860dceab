"""Edge nodes: what they publish, and how."""
