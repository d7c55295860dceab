"""Batches on their way to the store, directly or by way of the spool."""
