"""The programme's ledger, and the counts from it."""
