"""DuckDB as the embedded store."""
