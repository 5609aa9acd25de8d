"""Calls that make samples, classes or procedure videos as plain data, for processes on other machines."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.ledger import Made
from reelwright.stages.synthesize.make import make_class, make_sample
from reelwright.stages.synthesize.procedures.write import DatasetParameters, VideoJob, write_video
from reelwright.stages.synthesize.samples import Sample
from reelwright.stages.synthesize.spread import spread
from reelwright.storage.errors import InputError, ReelwrightError
from reelwright.storage.store import backend_of
from reelwright.storage.urls import of_plain, to_plain

ENTRY = "reelwright.stages.synthesize.calls:do_calls"


@dataclass(frozen=True)
class _Kind:
    """One of the functions, and its arguments as plain data and back."""

    function: Callable[..., Any]
    to_plain: Callable[..., list[Any]]
    from_plain: Callable[..., tuple[Any, ...]]


def _sample_to_plain(folder: Path, config: SynthesizeConfig, sample: Sample, class_file: Path | None) -> list[Any]:
    return [
        to_plain(folder),
        config.model_dump(mode="json"),
        asdict(sample),
        None if class_file is None else to_plain(class_file),
    ]


def _sample_from_plain(
    folder: Sequence[str], config: Mapping[str, Any], sample: Mapping[str, Any], class_file: Sequence[str] | None
) -> tuple[Any, ...]:
    path = None if class_file is None else of_plain(class_file)
    if path is not None and not backend_of(path).ensure_local(path):
        raise InputError(
            f"{path} is not on {socket.gethostname()}: every worker must see the class files of videos.synthesize. Put "
            "them into a folder that all machines share, or let them be drawn (num_classes)"
        )
    return of_plain(folder), SynthesizeConfig(**config), Sample(**sample), path


_KINDS: dict[str, _Kind] = {
    "sample": _Kind(make_sample, _sample_to_plain, _sample_from_plain),
    "class": _Kind(
        make_class,
        lambda folder, config, number: [to_plain(folder), config.model_dump(mode="json"), number],
        lambda folder, config, number: (of_plain(folder), SynthesizeConfig(**config), number),
    ),
    "procedure": _Kind(
        write_video,
        lambda folder, job: [to_plain(folder), asdict(job)],
        lambda folder, job: (
            of_plain(folder),
            VideoJob(**{**job, "parameters": DatasetParameters(**job["parameters"])}),
        ),
    ),
}


def kind_of(function: Callable[..., Any]) -> str:
    """The name of a function that can be called elsewhere."""
    return next(name for name, kind in _KINDS.items() if kind.function is function)


def plain_arguments(kind: str, arguments: tuple[Any, ...]) -> list[Any]:
    """Arguments of a call as texts, numbers, lists and dicts."""
    return _KINDS[kind].to_plain(*arguments)


def do_calls(values: Mapping[str, Any]) -> dict[str, Any]:
    """Do ``calls`` of a ``kind`` on ``workers`` processes; runs on a worker. Plain data in and out.

    Returns ``results`` in the order they end and the ``seconds`` of all, or the ``error`` that ended them.
    """
    kind = _KINDS[values["kind"]]
    started = time.monotonic()
    try:
        calls: Sequence[tuple[Any, ...]] = [kind.from_plain(*arguments) for arguments in values["calls"]]
        made = list(spread(kind.function, calls, workers=min(values["workers"], len(calls))))
    except ReelwrightError as error:
        return {"error": [type(error).__name__, str(error)]}
    results = [None if one is None else one.plain() for one in made]
    return {"results": results, "seconds": time.monotonic() - started}


def results_of(values: Mapping[str, Any]) -> list[Made | None]:
    """The results of `do_calls` as they were."""
    return [None if one is None else Made.of_plain(one) for one in values["results"]]
