"""Make labelled procedure videos: a script (`procedure`), its pixels (`render`) and the files (`write`).

Nothing is imported here, so that a config module beside these stays free of PyAV and Pillow.
"""
