"""What follows a durable batch: dead letters, first readings, reports, acknowledgements."""
