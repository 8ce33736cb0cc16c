"""Evaluation: one row per example, no aggregate."""
