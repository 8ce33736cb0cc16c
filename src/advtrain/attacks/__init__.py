"""Attacks: one pure function a file, all with the contract of `attack.py`."""
