"""Rows, windows, scores and models in memory, for people who program."""
