"""Fields of settings, by whether and how they enter the key of a node.

A field enters the key of its node, and that of what reads the weights of its run, unless its role says otherwise:

    execution(...)     no key: how it is done, not what comes out
    training(...)      the run's key only: how weights were found; what reads them has their digest in its key
    setting(when=...)  the keys only where other settings let it say something (the quality of JPEG)
    matters(when=...)  all keys; where other settings let it say nothing it is refused, and `setting` fields are too
    node_input(...)    names a node; enters by that node's digest, not by name
    source_file(...)   names a file; enters by the file's content
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field


def execution(default: Any = ..., **options: Any) -> Any:
    """A field that changes how the work is done but not its output; it never enters a key."""
    return Field(default, json_schema_extra={"role": "execution"}, **options)


def training(default: Any = ..., *, when: Callable[[Any], bool] | None = None, **options: Any) -> Any:
    """A field of how weights are found; it enters the run's key, and those of its users by the weights alone.

    ``when`` is that of `setting`.
    """
    extra: dict[str, Any] = {"role": "training", **({} if when is None else {"when": when})}
    return Field(default, json_schema_extra=extra, **options)


def setting(default: Any = ..., *, when: Callable[[Any], bool], of_report: bool = False, **options: Any) -> Any:
    """A field that enters the key where ``when`` is true of the whole settings; else it changes nothing.

    Then it is refused, unless it is ``of_report``, which people turn off for a while without taking out how it looks.
    """
    # read here alone: no JSON schema is made of settings
    extra: dict[str, Any] = {"role": "spec", "when": when, "of_report": of_report}
    return Field(default, json_schema_extra=extra, **options)


def matters(
    default: Any = ..., *, when: Callable[[Any], bool], role: Literal["spec", "training"] = "spec", **options: Any
) -> Any:
    """A field that enters keys as others do, but changes nothing where ``when`` is not true of its block."""
    extra: dict[str, Any] = {"role": role, "matters": when}
    return Field(default, json_schema_extra=extra, **options)


def ordered(*, role: Literal["spec", "training"] = "spec") -> Any:
    """A field with a mapping, empty unless set, whose order counts: it enters keys as pairs."""
    return Field(default_factory=dict, json_schema_extra={"role": role, "ordered": True})


def node_input(
    default: Any = ..., *, kinds: tuple[str, ...], used: Literal["", "training", "start"] = "", **options: Any
) -> Any:
    """A field that names one node (str) or several (list) whose stage produces one of ``kinds``.

    ``used`` by a run: for training only; or as its start, so that its weights expect what those of that run expect.
    """
    return Field(default, json_schema_extra={"role": "input", "kinds": list(kinds), "used": used}, **options)


def source_file(default: Any = ..., *, used: Literal["", "training"] = "", **options: Any) -> Any:
    """A field that names a file which enters the key by content; relative paths start at the pipeline file's folder.

    ``used`` by a run for training only: it enters the run's key alone.
    """
    return Field(default, json_schema_extra={"role": "source", "used": used}, **options)


def of_names(
    default: Any = ...,
    *,
    names: tuple[str, ...],
    when: Callable[[Any], bool] | None = None,
    matters: Callable[[Any], bool] | None = None,
    **options: Any,
) -> Any:
    """A field of a block with a `name` that means something for these names only.

    ``when`` is that of `setting`, ``matters`` the ``when`` of the function called so.
    """
    given = {"when": when, "matters": matters}
    extra: dict[str, Any] = {"names": list(names), **{name: of for name, of in given.items() if of is not None}}
    return Field(default, json_schema_extra=extra, **options)
