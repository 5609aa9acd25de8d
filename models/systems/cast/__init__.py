"""CAST: a spatial and a temporal expert that look at each other, and what it is made of."""
