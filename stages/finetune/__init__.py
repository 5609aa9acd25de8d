"""Encoder and temporal model trained end to end, from stored frames."""
