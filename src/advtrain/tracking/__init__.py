"""Tracking: what is logged where people browse the runs."""
