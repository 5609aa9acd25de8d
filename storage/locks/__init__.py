"""One lock algorithm over the few verbs of a folder or a bucket."""
