"""Keeping a store in order: verify, repair, gc, doctor, quarantine."""
