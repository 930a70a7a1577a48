"""Training: one visible loop over the batches of a log, and what it needs; it never knows which system it trains."""
