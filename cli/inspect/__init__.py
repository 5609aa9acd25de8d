"""Commands that look: show, report, settings, diff, compare, export, data."""
