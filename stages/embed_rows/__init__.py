"""Rows that a run makes of stored rows, whole videos at once."""
