"""A model that was trained elsewhere, taken as a run."""
