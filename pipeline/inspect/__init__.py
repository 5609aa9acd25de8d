"""Looking at what is there: comparing, exporting, logs, grids, contents."""
