"""Image encoders from key frames of states, video encoders from clips."""
