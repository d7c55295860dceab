"""The programme's ledger and what is counted by it."""
