"""Frames, rows and data sets as pictures for people."""
