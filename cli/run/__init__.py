"""Commands over a pipeline file: run, status, explain, graph, one command a stage, grids."""
