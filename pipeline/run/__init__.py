"""Running what is not up to date, node by node."""
