"""A unit of work as JSON and back, for processes that are started with a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reelwright.stages.work import InputRef, VideoItem, Work


def work_to_plain(work: Work) -> dict[str, Any]:
    """Dicts, lists, texts and numbers."""
    return {
        "node": work.node,
        "stage": work.stage,
        "key": work.key,
        "config": dict(work.config),
        "spec": dict(work.spec),
        "store": work.store,
        "inputs": {name: [_ref_to_plain(ref) for ref in refs] for name, refs in work.inputs.items()},
        "items": [list(item) for item in work.items],
        "payload": dict(work.payload),
        "plugins": dict(work.plugins),
        "is_part": work.is_part,
    }


def work_from_plain(values: Mapping[str, Any]) -> Work:
    """The work that `work_to_plain` wrote."""
    items = tuple(VideoItem(*item) for item in values["items"])
    inputs = {name: tuple(_ref_from_plain(ref) for ref in refs) for name, refs in values["inputs"].items()}
    return Work(**{**values, "items": items, "inputs": inputs})


def _ref_to_plain(ref: InputRef) -> dict[str, Any]:
    inputs = {name: [_ref_to_plain(entry) for entry in refs] for name, refs in ref.inputs.items()}
    return {"node": ref.node, "stage": ref.stage, "key": ref.key, "config": dict(ref.config), "inputs": inputs}


def _ref_from_plain(values: Mapping[str, Any]) -> InputRef:
    inputs = {name: tuple(_ref_from_plain(entry) for entry in refs) for name, refs in values["inputs"].items()}
    return InputRef(**{**values, "inputs": inputs})
