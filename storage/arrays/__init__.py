"""Zarr: frames and embeddings, their shards, and where rows lie in time."""
