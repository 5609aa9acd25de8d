"""Sliding windows of new or stored videos to Parquet."""
