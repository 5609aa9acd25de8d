"""Which videos a node reads: those its inputs have rows of, in its splits; with names and annotations."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from reelwright.pipeline.plan.dataset import Dataset
from reelwright.pipeline.plan.graph import Node
from reelwright.stages.base.work import VideoItem
from reelwright.storage.digests import digest
from reelwright.storage.tables.annotations import Annotation

# [video_id, video digest, split, annotation as plain data]
Named = list[Any]


def wanted_items(dataset: Dataset, node: Node, available: Iterable[set[str]]) -> tuple[VideoItem, ...]:
    """Usable videos whose digest every input has (``available``), in the splits of the node, each content once."""
    digests = set(dataset.items).intersection(*available)
    splits = node.config.wanted_splits()
    if splits is not None:
        digests = {found for video, found, _ in dataset.named(digests) if video.split in splits}
    if len(digests) == len(dataset.items):
        return dataset.all_items
    return tuple(item for found, item in dataset.items.items() if found in digests)


def named_videos(dataset: Dataset, node: Node, wanted: Iterable[VideoItem]) -> list[Named]:
    """The rows of the manifest behind ``wanted``, in the splits of the node, by video_id whatever their order."""
    splits = node.config.wanted_splits()
    rows = [
        [video.video_id, found, video.split, annotation.plain()]
        for video, found, annotation in dataset.named({item.digest for item in wanted})
        if splits is None or video.split in splits
    ]
    return sorted(rows, key=itemgetter(0))


def samples(dataset: Dataset, node: Node, wanted: Iterable[VideoItem]) -> list[Named]:
    """What a run learns from: one row for each content, split and annotation, whatever the names and their order.

    Where it learns without labels, annotations are empty.
    """
    distinct: dict[str, Named] = {}
    for named in named_videos(dataset, node, wanted):
        entry = named if node.config.learns_labels else [*named[:-1], Annotation().plain()]
        distinct.setdefault(digest(entry[1:]), entry)
    return [distinct[name] for name in sorted(distinct)]
