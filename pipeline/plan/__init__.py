"""What is up to date, what is not, and why: graph, data set, keys, estimates, the lock file."""
