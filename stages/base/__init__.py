"""What a stage is: roles of settings, the registry, units of work."""
