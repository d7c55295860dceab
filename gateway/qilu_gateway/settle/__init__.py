"""Settlement of durable batches: dead letters, first readings, reports, acknowledgements."""
