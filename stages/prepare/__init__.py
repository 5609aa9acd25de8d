"""Data sets that people have, as manifest and label tables."""
