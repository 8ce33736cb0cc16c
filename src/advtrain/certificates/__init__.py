"""Certificates: one pure function a file, all with the contract of `certificate.py`."""
