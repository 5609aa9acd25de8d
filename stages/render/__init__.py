"""Render: pictures and videos of what was made of videos, for people.

config      what is drawn, of which videos
work        one file after the other -> pictures/<key>/, with a page that shows them all
rows        of rows: videos side by side as MP4; matrices, matches, retrieved frames, colours over time as PNG and JPEG
attention   of predictions: films and sheets of attention over frames, and changes of scores
"""
