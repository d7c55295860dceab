"""Migrations of the registry's schema; run when the platform starts."""
