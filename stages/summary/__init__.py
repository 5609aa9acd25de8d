"""Mean and standard deviation of the scores of several nodes, such as those of several seeds."""
