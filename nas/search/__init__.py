"""The search: a pure scheduler over a ledger, samplers over a pool, executors that train, and the driver."""
