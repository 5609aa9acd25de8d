"""Temporal models on stored rows."""
