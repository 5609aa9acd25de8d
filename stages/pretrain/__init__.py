"""Image encoders from key frames of states."""
