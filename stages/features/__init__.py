"""Features that people already have, as rows of an embedding store."""
