"""Metrics on arrays; plain numbers out."""
