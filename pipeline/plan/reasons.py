"""Why a node is not up to date: the difference between what its key was made of and what it is made of now.

Of the videos that a run learned from, or a prediction was published of, a key has one digest: they are written down
beside the record, to be counted against later.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reelwright.pipeline.plan.graph import Node
from reelwright.storage.digests import digest, read_sealed, readable
from reelwright.storage.files import write_sealed
from reelwright.storage.ledger.digest_cache import KnownFiles
from reelwright.storage.ledger.records import Record
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN, LabelSet

UNREAD = {  # of several videos, and of one
    "changed on disk and not read yet": "changed since it was read",
    "to be read again (videos.digest was another)": "not changed, but read with another videos.digest",
    "to be read again (what was known of them is gone from the store)": "not changed, but what was known of it is gone",
    "new and not read yet": "new",
}
TARGETS = "targets"  # output of what publishes predictions
MISSING: Any = object()  # in place of a value that one side does not have


class InputVideo(NamedTuple):
    """One video as a node read it."""

    content: str  # digest of the video
    split: str
    labels: str  # digest of the annotation
    video_id: str


def input_videos(named: Iterable[Sequence[object]]) -> list[InputVideo]:
    """The videos of rows [video_id, content, split, annotation as plain data]."""
    return [InputVideo(str(content), str(split), digest(labels), str(name)) for name, content, split, labels in named]


def targets_by_split(videos: Sequence[InputVideo], labels: LabelSet, background: int) -> dict[str, str]:
    """Split -> digest of contents and labels: scores on other targets than these are no match for each other."""
    by_split: dict[str, list[list[str]]] = defaultdict(list)
    for entry in videos:
        by_split[entry.split].append([entry.content, entry.labels])
    known = [list(labels.classes), background, [list(head) for head in labels.heads]]
    return {split: digest([sorted(pairs), known]) for split, pairs in sorted(by_split.items())}


def write_input_videos(store: Store, key: str, videos: Sequence[InputVideo]) -> None:
    """Write down what a node read, beside its record, so that a later difference can be counted."""
    write_sealed(store.node(key) / "samples.json", {"samples": [list(entry) for entry in videos]}, indent=None)


def read_input_videos(store: Store, key: str) -> list[InputVideo]:
    """What was written down; empty when nothing was, or in an earlier form."""
    store.backend.pull(store.node(key))
    path = store.node(key) / "samples.json"
    with readable(path):
        found = read_sealed(path)["samples"] if path.is_file() else []
        return (
            [InputVideo(*entry) for entry in found]
            if all(len(entry) == len(InputVideo._fields) for entry in found)
            else []
        )


def explain_difference(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    node: Node,
    videos: Callable[[], tuple[Sequence[InputVideo], ...]],
    streamed: Callable[[str], Sequence[str]],
) -> list[str]:
    """One line a difference: ``spec.fps: 5 -> 10``, ``input embeddings: 1 of 4 videos new``, ``weights changed``.

    ``videos`` gives what the node read then and reads now; it is called only where that differs. ``streamed`` gives
    what is otherwise with an input that is not stored, and so is never stale itself: ``input frames: frames changed
    (spec.fps: 5 -> 10)``.
    """
    lines: list[str] = []
    if old.get("version") != new["version"]:
        lines.append(f"stage version: {old.get('version')} -> {new['version']}")
    lines += [
        f"spec.{path}: {shown(before)} -> {shown(after)}"
        for path, before, after in differing(old.get("spec", {}), new["spec"])
    ]
    lines += plugin_differences(old.get("plugins", {}), new.get("plugins", {}))
    before_inputs, after_inputs = old.get("inputs", {}), new["inputs"]
    for name in sorted({*before_inputs, *after_inputs}):
        before, after = before_inputs.get(name), after_inputs.get(name)
        if before == after:
            continue
        if name == "videos":
            lines += video_differences(*videos(), field=rows_field(node)) or ["videos or labels changed"]
        elif name in node.inputs:
            why = "; ".join(line for parent in node.inputs[name] for line in streamed(parent))
            parents = ", ".join(node.inputs[name]) or "none"
            lines.append(f"input {name}: {parents} changed{f' ({why})' if why else ''}")
        elif name == "classes":
            lines.append(f"classes: {shown(before)} -> {shown(after)}")
        elif name == "background":
            named = [_class_name(before, before_inputs), _class_name(after, after_inputs)]
            lines.append(f"background: {named[0]} -> {named[1]}")
        else:
            lines.append(f"{name} changed")
    return lines


def plugin_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """One line a plug-in that has the same name and is another all the same."""
    for name in sorted(old.keys() & new.keys()):
        before, after = old[name], new[name]
        if before == after or before["name"] != after["name"]:
            continue  # the name is a setting, which is told already
        message = "source changed"
        if "version" in after or "version" in before:
            sides = [
                " ".join((entry.get("distribution", "source"), entry.get("version", ""))) for entry in (before, after)
            ]
            message = f"{sides[0].strip()} -> {sides[1].strip()}"
            message = f"{sides[0]} was installed anew, with other files" if sides[0] == sides[1] else message
        yield f"{name} {after['name']}: {message}"


def rows_field(node: Node) -> str:
    """The input of a node that has rows of single videos; empty for nodes that read the videos themselves."""
    return next((name for name in ("embeddings", "frames") if node.inputs.get(name)), "")


def differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, old value, new value) of every leaf that differs between two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differing(old.get(name, MISSING), new.get(name, MISSING), f"{path}.{name}" if path else name)
    elif old is MISSING or new is MISSING or digest(_plain(old)) != digest(_plain(new)):
        yield path, old, new


def flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the leaves of nested mappings; ``path`` goes before."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def shown(value: Any) -> str:
    """A value as JSON, whole numbers without a fraction, cut to a line."""
    if value is MISSING:
        return "(not set)"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def item_reasons(
    *, num_wanted: int, num_fresh: int, num_failed: int, is_known_spec: bool, is_known_set: bool, field: str
) -> Iterable[str]:
    """What is to be done of a node with items: ``num_fresh`` were not tried yet, ``num_failed`` failed.

    ``is_known_spec``: the last run had the same settings and inputs, so that what is not done is new; ``is_known_set``:
    these very videos were all done, so that what is not done is gone.
    """
    if num_fresh and is_known_set:
        yield f"gone from the store: {num_fresh:,} of {num_wanted:,} videos"
    elif num_fresh and is_known_spec:
        yield f"{f'input {field}' if field else 'videos'}: {num_fresh:,} of {num_wanted:,} videos new"
    elif num_fresh + num_failed == num_wanted and num_fresh:
        yield f"nothing done yet of {num_wanted:,} videos"
    elif num_fresh:
        yield f"incomplete: {num_fresh:,} of {num_wanted:,} videos to do"
    if num_failed:
        yield f"failed: {num_failed:,}"


def why_unread(files: KnownFiles, path: str, content: str | None) -> str:
    """Which of UNREAD a video is whose ``content`` (a digest, where its file is as it was) has no probe."""
    changed, other_digest, gone, new = UNREAD
    if content is not None:
        return gone
    entry = files.entries.get(path)
    if entry is None:
        return new
    return changed if files.get(path, quick=entry[1]) is None else other_digest


def why_no_record(last: Record | None, key: str) -> str:
    """Why a node has no record of ``key`` though nothing differs from its ``last`` one."""
    if last is None:
        return "never ran"
    return "its record is gone from the store" if last.key == key else "never ran with these inputs"


def video_differences(
    old: Sequence[InputVideo], new: Sequence[InputVideo], *, field: str, with_names: bool = False
) -> list[str]:
    """``input embeddings: 1 of 4 videos new``, ``labels: 1 of 3 videos changed``; ``field`` is the input they came by.

    Nothing is said where nothing is known of before.
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


def _by_content(videos: Sequence[InputVideo], aspect: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for entry in videos:
        found[entry.content].add(getattr(entry, aspect))
    return found


def _count(what: str, count: int, total: int, change: str) -> str:
    return f"{what}: {count:,} of {total:,} videos {change}" if count else ""


def _class_name(position: int | None, inputs: Mapping[str, Any]) -> str:
    return "none" if position in {None, UNKNOWN} else shown(inputs["classes"][position])


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
