"""Bounds on what a network can say of any image of a ball."""
