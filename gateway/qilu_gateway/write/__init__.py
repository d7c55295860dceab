"""Writing of batches to the store, directly or through the spool."""
