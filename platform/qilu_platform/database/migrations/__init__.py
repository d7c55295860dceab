"""The registry's schema, step by step; run when the platform starts."""
