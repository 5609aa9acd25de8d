"""Optimizers: settings, names, parameter groups."""
