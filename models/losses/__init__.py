"""Losses on tensors."""
