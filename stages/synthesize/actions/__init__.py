"""Action videos: one object does one thing among others that lie still."""
