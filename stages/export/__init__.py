"""Rows, predictions and kept outputs in the forms of other programs."""
