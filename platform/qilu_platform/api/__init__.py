"""The platform's HTTP API, one module per part."""
