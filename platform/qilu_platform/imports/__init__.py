"""Bulk imports: files and lines are checked and registered."""
