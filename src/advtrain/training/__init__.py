"""Training: the one loop that runs every method, and what it needs."""
