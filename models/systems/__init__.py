"""Networks and arithmetic of whole systems: encoder and temporal model as one, key frames, steps of a procedure."""
