"""From predictions and detections to completed steps of a procedure."""
