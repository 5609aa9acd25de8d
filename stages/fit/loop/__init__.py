"""The trainer: batches, updates, checkpoints, progress, loggers."""
