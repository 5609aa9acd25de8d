"""From frames to rows."""
