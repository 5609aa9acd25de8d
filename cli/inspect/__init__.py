"""Commands that look: report, settings, diff, compare, export, data."""
