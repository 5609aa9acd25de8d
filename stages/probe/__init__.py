"""Probe: measures of stored rows, of an encoder or of a run alike, with or without labels.

config    which rows and videos, which tasks
tasks     what each task needs and measures, and which of its numbers are scores
work      rows -> numbers -> metrics.json and report.html
report    the page: numbers of all rows side by side, and pictures of the rows
"""
