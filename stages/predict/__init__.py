"""Sliding windows of new or stored videos to Parquet, with what else the model says of them."""
