"""Why a node is not up to date: the difference between what its key was made of and what it is made of now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reelwright.pipeline.graph import Node
from reelwright.storage.digests import digest
from reelwright.storage.files import write_sealed
from reelwright.storage.store import Store

MISSING: Any = object()  # in place of a value that one side does not have


def explain_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], *, node: Node, samples: Sequence[Any], store: Store, last_key: str
) -> list[str]:
    """One line a difference: ``spec.fps: 5 -> 10``, ``input embeddings: embed changed``, ``videos: 1 new``."""
    lines: list[str] = []
    if old.get("version") != new["version"]:
        lines.append(f"stage version: {old.get('version')} -> {new['version']}")
    lines += [
        f"spec.{path}: {shown(before)} -> {shown(after)}"
        for path, before, after in differing(old.get("spec", {}), new["spec"])
    ]
    before_inputs, after_inputs = old.get("inputs", {}), new["inputs"]
    for name in sorted({*before_inputs, *after_inputs}):
        if before_inputs.get(name) == after_inputs.get(name):
            continue
        if name == "videos":
            lines.append(_sample_difference(read_samples(store, last_key), samples))
        elif name in node.inputs:
            lines.append(f"input {name}: {', '.join(node.inputs[name]) or 'none'} changed")
        elif name == "classes":
            lines.append(f"classes: {shown(before_inputs.get(name))} -> {shown(after_inputs.get(name))}")
        else:
            lines.append(f"{name} changed")
    return lines


def differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted path, old value, new value) of every leaf that differs between two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differing(old.get(name, MISSING), new.get(name, MISSING), f"{path}.{name}" if path else name)
    elif old is MISSING or new is MISSING or digest(_plain(old)) != digest(_plain(new)):
        yield path, old, new


def write_samples(store: Store, key: str, samples: Sequence[Any]) -> None:
    """Note what a run learned from, so that a later difference can be counted."""
    entries = [[entry[0], digest(list(entry[1:]))] for entry in samples]
    write_sealed(store.node(key) / "samples.json", {"samples": entries})


def read_samples(store: Store, key: str) -> list[list[str]]:
    """Pairs of video digest and digest of split and targets; empty when nothing was noted."""
    path = store.node(key) / "samples.json"
    found: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))["samples"] if path.is_file() else []
    return found


def _sample_difference(old: Sequence[Sequence[str]], new: Sequence[Any]) -> str:
    before = {entry[0]: entry[1] for entry in old}
    after = {entry[0]: digest(list(entry[1:])) for entry in new}
    counts = {
        "new": len(after.keys() - before.keys()),
        "gone": len(before.keys() - after.keys()),
        "with other labels or split": sum(after[name] != before[name] for name in after.keys() & before.keys()),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"videos: {told or 'changed'} (of {len(after):,})"


def shown(value: Any) -> str:
    """A value as JSON, cut to a line."""
    if value is MISSING:
        return "(not set)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
