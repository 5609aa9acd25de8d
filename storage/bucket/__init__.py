"""Stores in object stores: requests, the working copy, what is pulled and what is pushed."""
