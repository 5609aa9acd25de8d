"""What a run learned from, or a prediction was published of: noted beside its record, to be counted against later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from reelwright.storage.damage import readable
from reelwright.storage.digests import digest
from reelwright.storage.files import read_sealed, write_sealed
from reelwright.storage.store import Store

if TYPE_CHECKING:
    from reelwright.pipeline.dataset import Dataset

TARGETS = "targets"  # output of what publishes predictions


class Noted(NamedTuple):
    """One video as a node read it."""

    content: str  # digest of the video
    split: str
    labels: str  # digest of the annotation
    video_id: str


def noted(named: Iterable[Sequence[object]]) -> list[Noted]:
    """The notes of rows [video_id, content, split, annotation as plain data]."""
    return [Noted(str(content), str(split), digest(labels), str(name)) for name, content, split, labels in named]


def targets_by_split(videos: Sequence[Noted], dataset: Dataset) -> dict[str, str]:
    """Split -> digest of contents and labels: scores on other targets than these are no match for each other."""
    by_split: dict[str, list[list[str]]] = defaultdict(list)
    for entry in videos:
        by_split[entry.split].append([entry.content, entry.labels])
    labels = [list(dataset.labels.classes), dataset.background, [list(head) for head in dataset.labels.heads]]
    return {split: digest([sorted(pairs), labels]) for split, pairs in sorted(by_split.items())}


def write_noted(store: Store, key: str, videos: Sequence[Noted]) -> None:
    """Note what a node read, so that a later difference can be counted."""
    write_sealed(store.node(key) / "samples.json", {"samples": [list(entry) for entry in videos]}, indent=None)


def read_noted(store: Store, key: str) -> list[Noted]:
    """What was noted; empty when nothing was, or in an earlier form."""
    store.backend.pull(store.node(key))
    path = store.node(key) / "samples.json"
    with readable(path):
        found = read_sealed(path)["samples"] if path.is_file() else []
        return [Noted(*entry) for entry in found] if all(len(entry) == len(Noted._fields) for entry in found) else []


def video_differences(old: Sequence[Noted], new: Sequence[Noted], *, field: str, with_names: bool = False) -> list[str]:
    """``input embeddings: 1 of 4 videos new``, ``labels: 1 of 3 videos changed``; ``field`` is the input they came by.

    Nothing is said where nothing was noted of before.
    """
    if not old:
        return []
    contents, before = {entry.content for entry in new}, {entry.content for entry in old}
    come = f"input {field}" if field else "videos"
    lines = [
        _count(come, len(contents - before), len(contents), "new"),
        _count(come, len(before - contents), len(before), "gone"),
    ]
    for name, aspect in (("splits", "split"), ("labels", "labels"), *([("names", "video_id")] if with_names else [])):
        sides = [_by_content(side, aspect) for side in (old, new)]
        changed = sum(sides[0][content] != sides[1][content] for content in contents & before)
        lines.append(_count(name, changed, len(contents), "changed"))
    return [line for line in lines if line]


def _by_content(videos: Sequence[Noted], aspect: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for entry in videos:
        found[entry.content].add(getattr(entry, aspect))
    return found


def _count(what: str, count: int, total: int, told: str) -> str:
    return f"{what}: {count:,} of {total:,} videos {told}" if count else ""
