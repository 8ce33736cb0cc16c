"""Training methods: one file each, all with the contract of `method.py`."""
