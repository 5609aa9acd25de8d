"""A unit of work as JSON and back, for processes that are started with a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from reelwright.stages.base.work import Work

_WORK = TypeAdapter(Work)


def work_to_plain(work: Work) -> dict[str, Any]:
    """Dicts, lists, texts and numbers."""
    plain: dict[str, Any] = _WORK.dump_python(work, mode="json")
    return plain


def work_from_plain(values: Mapping[str, Any]) -> Work:
    """The work that `work_to_plain` wrote."""
    return _WORK.validate_python(values)
