"""The report's pages: charts, ribbons, cards of videos, frames to look at."""
