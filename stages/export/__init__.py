"""Rows and predictions in the forms of other programs."""
