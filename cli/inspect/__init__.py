"""Commands that look: show, report, diff, compare, export, data."""
