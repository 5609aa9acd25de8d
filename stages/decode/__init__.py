"""From videos to frames."""
