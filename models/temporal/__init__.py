"""Models over the rows of a window."""
