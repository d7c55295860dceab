"""What is registered, by whom, and what state it is in."""
