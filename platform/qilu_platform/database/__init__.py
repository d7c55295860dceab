"""The registry's database: SQLite or PostgreSQL, the same statements for both."""
