"""Rows that are class scores already, taken as predictions."""
