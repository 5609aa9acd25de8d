"""What is drawn: one module a family, and the arithmetic they share."""
