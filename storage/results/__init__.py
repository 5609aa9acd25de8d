"""Parquet and runs: predictions, steps, scores, trained models."""
