"""Labelled procedure videos: a script, its pixels, the files."""
