"""What is done and known: items, records, digests of files, the layout of a store."""
