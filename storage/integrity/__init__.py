"""What lies in a store against what was written; what nobody reaches; taking out what is broken."""
