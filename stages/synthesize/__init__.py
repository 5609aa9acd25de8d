"""Videos made by programs: families of classes, procedure videos, the stage that makes them, and the command.

Nothing is imported here, so that a config module beside these stays free of PyAV and Pillow.
"""
