"""Encoders, temporal models, losses, schedules and metrics on arrays and tensors; knows no files."""
