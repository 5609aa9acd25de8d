"""Frames and data sets as pictures for people."""
