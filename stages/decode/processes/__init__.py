"""Decoding in processes that can be killed: the pool, its protocol, and what a worker does."""
