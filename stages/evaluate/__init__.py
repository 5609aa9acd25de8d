"""From predictions and labels to scores and a report."""
