"""What several models are made of: heads, weights, running means, checkpointing, mixing, schedules."""
