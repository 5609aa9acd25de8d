"""Steps: predictions and detections of all videos into three tables, written in one go.

predictions (changes) ----+
                          +-> streams by frame -> decoders -> steps.parquet
predictions or detections +                       labels ---> truth.parquet
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelwright.models.systems.step_states import has_errors
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.inputs import unchanged_sources
from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.labelled import LabelledVideo, payload_videos
from reelwright.stages.steps.config import StepsConfig
from reelwright.stages.steps.decoding import Recognised, decode
from reelwright.stages.steps.procedure import Procedure, read_procedure
from reelwright.stages.steps.streams import VideoStreams, is_changes, joined, read_changes, read_objects, read_states
from reelwright.stages.steps.truth import TrueSteps, annotated_steps, read_truth
from reelwright.storage.errors import ConfigError, InputError, StageError, nearest
from reelwright.storage.files import replacing_folder
from reelwright.storage.results.predictions import PredictionSet
from reelwright.storage.results.steps import StepsInfo, write_steps
from reelwright.storage.store import Store
from reelwright.storage.tables.detections import read_detections

_NAMED = 5  # videos that a note names
_SLACK_SECONDS = 1.0  # that detections may lie behind the end of their video


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Write `Store.output("steps", key)`: steps.parquet, truth.parquet and videos.parquet (storage/results/steps.py).

    Returns num_videos, num_steps, num_true_steps and num_with_truth. Raises ConfigError or InputError when streams and
    procedure do not fit, StageError when no video has anything to decode.
    """
    config = parse_config(StepsConfig, dict(work.config), where=work.node)
    store = Store.at(work.store)
    videos = payload_videos(work.payload)
    with unchanged_sources(work):
        procedure = read_procedure(Path(config.procedure))
        streams = _streams(work, config, procedure, {video.video_id for video in videos}, reporter)
        truth = read_truth(Path(config.truth), procedure) if config.truth is not None else None
    shown = [video for video in videos if video.video_id in streams]
    if not shown:
        raise StageError(f"{work.node}: no video of the manifest has predictions or detections in the splits asked for")
    if truth is not None:
        _check_names(str(config.truth), truth, {video.video_id for video in shown}, reporter)
    if len(shown) < len(videos):
        reporter.note(f"{len(videos) - len(shown):,} of {len(videos):,} videos have nothing to decode and are left out")
    tables: dict[str, list[Mapping[str, Any]]] = {"steps": [], "truth": [], "videos": []}
    reporter.total(len(shown), "videos")
    durations = {entry["video_id"]: entry.get("duration_seconds") for entry in work.payload["videos"]}
    if config.detections is not None and procedure.fps is not None:
        _check_ends(config.detections, streams, durations, procedure.fps, reporter)
    for video in shown:
        kind = procedure.kind_of(video.video_id)
        found = decode(streams[video.video_id], kind=kind, procedure=procedure, config=config)
        if truth is not None:
            true = truth.get(video.video_id)
        else:
            true = annotated_steps(video.annotation, work.payload["classes"], procedure)
        tables["steps"] += _step_rows(video, found, streams[video.video_id], procedure)
        tables["truth"] += _truth_rows(video, true or [], streams[video.video_id], procedure)
        expected = procedure.expected(kind)
        tables["videos"].append(
            {
                **_named(video),
                "procedure": kind,
                "duration_seconds": durations[video.video_id],
                "num_steps": len(found),
                "has_truth": true is not None,
                "has_errors": None if true is None else has_errors([step for _, step in true], expected=expected),
            }
        )
        reporter.advance(1)
    windows = [found.window for found in streams.values() if found.window is not None]
    info = _info(work, config, procedure, window=config.window or (max(windows) if windows else None))
    with replacing_folder(store.output("steps", work.key)) as folder:
        write_steps(folder, info, tables)
    return {
        "num_videos": len(shown),
        "num_steps": len(tables["steps"]),
        "num_true_steps": len(tables["truth"]),
        "num_with_truth": sum(row["has_truth"] for row in tables["videos"]),
    }


def _streams(
    work: Work, config: StepsConfig, procedure: Procedure, names: set[str], reporter: Reporter
) -> dict[str, VideoStreams]:
    """Both streams of every video that has one."""
    parts = []
    sets = [PredictionSet(Store.at(work.store).predictions(ref.key)) for ref in work.inputs.get("predictions", ())]
    kinds = [is_changes(predictions) for predictions in sets] + ([False] if config.detections is not None else [])
    if len(kinds) > 1 and (len(set(kinds)) == 1 or procedure.fps is None):
        raise ConfigError(
            f"{work.node}: two streams must be one of changes (task multi_label) and one of states, and the procedure "
            f"needs an fps to bring them together; fps is {procedure.fps}, tasks are {[s.info.task for s in sets]}"
        )
    for predictions in sets:
        read: Iterator[tuple[str, VideoStreams]] = (
            read_changes(predictions, procedure) if is_changes(predictions) else read_states(predictions, procedure)
        )
        parts.append(dict(read))
    if config.detections is not None:
        objects = read_detections(Path(config.detections), num_classes=len(procedure.states) + 2)
        _check_names(config.detections, objects, names, reporter)
        known = {name: listed for name, listed in objects.items() if name in names}
        # A detector that saw nothing in a video has no line of it.
        parts.append({**dict.fromkeys(names, VideoStreams(is_dense=True)), **read_objects(known, procedure)})
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    return {name: joined(first[name], second[name]) for name in first.keys() & second.keys()}


def _check_names(table: str, named: Collection[str], decoded: set[str], reporter: Reporter) -> None:
    """Note videos of a table that are not decoded. Raises InputError where that is all of them: its ids are others."""
    others = [name for name in named if name not in decoded]
    if others and len(others) == len(named):
        raise InputError(
            f"{table}: none of its {len(named):,} videos is decoded; the first is {others[0]!r}."
            f"{nearest(others[0], decoded)} Ids must be written as in the manifest, of videos of the splits asked for"
        )
    if others:
        reporter.note(f"{table}: {len(others):,} of its {len(named):,} videos are not decoded: {_some(others)}")


def _check_ends(
    table: str,
    streams: Mapping[str, VideoStreams],
    durations: Mapping[str, float | None],
    fps: float,
    reporter: Reporter,
) -> None:
    """Note detections behind the end of their video. Raises InputError where one is twice as late: of another rate."""
    late: list[str] = []
    for video_id, found in streams.items():
        last, duration = max(found.detections, default=0) / fps, durations.get(video_id) or 0.0
        if duration and last > duration + _SLACK_SECONDS:
            late.append(f"{video_id} ({last:.1f} of {duration:.1f} s)")
            if last > 2 * duration + _SLACK_SECONDS:
                raise InputError(
                    f"{table}: detections reach far behind the end of their video: {late[-1]}, at {fps:g} frames a "
                    "second. Are frames numbered at another rate? Set fps of the procedure"
                )
    if late:
        reporter.note(f"warning: {table}: detections reach behind the end of their video: {_some(late)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _named(video: LabelledVideo) -> dict[str, str]:
    return {"video_id": video.video_id, "video_digest": video.digest, "split": video.split}


def _step_rows(
    video: LabelledVideo, found: Sequence[Recognised], streams: VideoStreams, procedure: Procedure
) -> Iterator[dict[str, Any]]:
    for position, ((frame, step, score), source) in enumerate(found):
        time = streams.time_of(frame, procedure.fps)
        row = _row(video, procedure, position=position, time_seconds=time, frame=frame, step_id=step)
        yield {**row, "score": score, "observed": True, "source": source}


def _truth_rows(
    video: LabelledVideo, true: TrueSteps, streams: VideoStreams, procedure: Procedure
) -> Iterator[dict[str, Any]]:
    for position, (time, step) in enumerate(true):
        if procedure.fps is not None:
            frame = round(time * procedure.fps)
        else:  # the first row that shows it
            frame = min((row for row, seconds in streams.times.items() if seconds >= time), default=-1)
        yield _row(video, procedure, position=position, time_seconds=time, frame=frame, step_id=step)


def _row(video: LabelledVideo, procedure: Procedure, **when: Any) -> dict[str, Any]:
    """A line of a table; ``when``: position, time_seconds, frame, step_id."""
    step = when["step_id"]
    names = {"step": procedure.step_names[step], "component": procedure.components[step // 3]}
    return {**_named(video), **when, **names, "action": procedure.action_of(step)}


def _info(work: Work, config: StepsConfig, procedure: Procedure, *, window: int | None) -> StepsInfo:
    shown = ("confidence", "threshold", "decay", "initial", "fusion", "weight", "non_states")
    return StepsInfo(
        key=work.key,
        procedure=procedure.name,
        decoder=config.decoder,
        fps=procedure.fps,
        window=window,
        step_names=procedure.step_names,
        expected={kind: list(procedure.expected(kind)) for kind in procedure.procedures},
        extra={name: getattr(config, name) for name in shown},
    )
