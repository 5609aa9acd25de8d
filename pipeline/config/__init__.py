"""What a person writes: the pipeline file, overrides, cluster blocks, profiles, recipes."""
