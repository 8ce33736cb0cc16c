"""The workflow: the runner of one job, the steps it can run, and what watches them."""
