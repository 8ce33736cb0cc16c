"""Reporting: tables, statistics, figures and the page, from the rows alone (imports no torch)."""
