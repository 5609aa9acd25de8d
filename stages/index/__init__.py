"""Digests and probes of videos, before anything is planned."""
