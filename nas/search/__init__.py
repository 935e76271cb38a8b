"""The search: pure schedulers over a ledger, samplers over a pool, and the driver."""
