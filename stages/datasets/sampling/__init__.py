"""Which frames a clip takes, which rows a window, and what an epoch draws: pure arithmetic."""
