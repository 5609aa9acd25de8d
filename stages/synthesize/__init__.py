"""Videos made by programs: families of classes, procedure videos, and the ledger of what is made.

Nothing is imported here, so that a config module beside these stays free of PyAV and Pillow.
"""
