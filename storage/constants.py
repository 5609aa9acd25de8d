"""Names and beginnings of names in a store that several modules go by."""

from __future__ import annotations

TEMPORARY = ".tmp-"  # begins what is not whole yet and gone when its writer is
PARTIAL = ".partial-"  # begins an item that is not whole yet, which the next writer goes on with
INCOMING = ".incoming"  # in a working copy: what is being brought from the bucket
VIDEOS = "videos.json"  # digests of video files by path
LOGGERS = "loggers"  # what loggers keep of runs; their files are not ours
SCHEMA = "store.json"  # which layout the store has
URLS = "urls.json"  # digests of objects in buckets, where the store is in one itself
