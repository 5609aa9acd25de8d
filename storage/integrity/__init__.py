"""What lies in a store against what was written; what nobody reaches, and its removal."""
