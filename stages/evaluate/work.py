"""Evaluate: scores of predictions, as JSON and CSV, and the report; the folder is written in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reelwright.stages.base.work import InputRef, Reporter, VideoItem, Work
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.embedding_map import LabelAt, drawn_map, labels_of_rows
from reelwright.stages.evaluate.evaluators import EVALUATORS, own_scores
from reelwright.stages.evaluate.intervals import headline_intervals
from reelwright.stages.evaluate.pages.frame_source import Wanted, find_stage, pictures
from reelwright.stages.evaluate.pages.page import Section, render
from reelwright.stages.evaluate.pages.report import Report, page_of
from reelwright.stages.evaluate.pages.ribbons import axis_of
from reelwright.stages.evaluate.pages.thumbnails import slice_times
from reelwright.stages.evaluate.pages.video_cards import VideoCard
from reelwright.stages.evaluate.provenance import file_address, making_facts, making_sections
from reelwright.stages.evaluate.scoring import (
    class_id,
    headline,
    main_unit,
    overall,
    score_predictions,
    splits_of,
    unit_tables,
)
from reelwright.stages.evaluate.steps import run_steps
from reelwright.stages.evaluate.tables import confusion_lines, video_lines, write_csv, write_json
from reelwright.stages.evaluate.videos import (
    Timeline,
    VideoLabels,
    VideoResult,
    target_ids,
    timelines,
    video_labels,
    worst_first,
)
from reelwright.storage.errors import StageError
from reelwright.storage.files import replacing_folder
from reelwright.storage.results.predictions import PredictionSet
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from reelwright.storage.tables.annotations import UNKNOWN


def run(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Score the predictions of one node, or the completed steps of a steps node (`steps.run_steps`).

    Writes `Store.report(key)`: metrics.json, per_video.csv, confusion.csv (one label an entry only) and report.html.
    Returns the headline numbers (see `scoring.headline`) with `num_videos` and `num_scored`, and `intervals`: [low,
    high] by number, the 95 % bootstrap interval over videos (none of fewer than two). Where no video has a
    target, num_scored is 0, there are no scores, and the report shows what was predicted. Raises StageError when no
    video is in the splits asked for.
    """
    if work.inputs["predictions"][0].stage == "steps":
        return run_steps(work, reporter)
    config = EvaluateConfig.model_validate(dict(work.config))
    store = Store.at(work.store)
    predictions = PredictionSet(store.predictions(work.inputs["predictions"][0].key))
    info = predictions.info
    class_id(info, config.background)
    labels = video_labels(predictions, unit=main_unit(info), splits=set(config.splits), threshold=config.threshold)
    if not labels:
        raise StageError(_no_videos(predictions, config))
    results = video_results(predictions)
    tables = unit_tables(predictions)
    found = score_predictions(predictions, labels, config, tables=tables)
    scores = {name: units for name, units in found.items() if units}
    splits = splits_of(video.split for video in labels)
    own = own_scores(predictions, config.evaluators, splits=splits, plugins=work.plugins)
    counts = {"num_videos": len(labels), "num_scored": _num_scored(labels, results)}
    summary: dict[str, Any] = {**counts, **headline(scores, info)}
    between, notes = headline_intervals(tables, labels, config, info=info)
    summary |= {"intervals": between} if between else {}
    for note in notes:
        reporter.note(note)
    summary |= {f"{name}_{number}": value for name, found in overall(own).items() for number, value in found.items()}
    if not scores:
        reporter.note("no video has a target: nothing is scored, the report shows what was predicted")
    with replacing_folder(store.report(work.key)) as folder:
        written = _metrics(work, predictions, summary=summary, scores=scores)
        write_json(folder / "metrics.json", {**written, EVALUATORS: own} if own else written)
        write_csv(folder / "per_video.csv", video_lines(labels, results, info=info, config=config))
        confusion = scores and overall(scores).get(main_unit(info), {}).get("confusion")
        if confusion:
            write_csv(folder / "confusion.csv", confusion_lines(confusion, info.classes))
        if config.report:
            report = _report(work, predictions, labels=labels, results=results, scores=scores, reporter=reporter)
            report = replace(report, own=overall(own), intervals=between, interval_notes=notes)
            (folder / "report.html").write_text(render(page_of(report)), encoding="utf-8")
    return summary


def video_results(predictions: PredictionSet) -> dict[str, VideoResult]:
    """What was predicted for each whole video, by video_id."""
    table = predictions.videos(columns=["video_id", "label_id", "score", "target_id"])
    columns = [table["video_id"].to_pylist(), table["label_id"].to_pylist(), table["score"].to_pylist()]
    return {
        video_id: VideoResult(label_id=label, score=score, target_id=int(target))
        for video_id, label, score, target in zip(*columns, target_ids(table), strict=True)
    }


def _num_scored(labels: Sequence[VideoLabels], results: Mapping[str, VideoResult]) -> int:
    def has_target(video: VideoLabels) -> bool:
        return video.quality is not None or (video.video_id in results and results[video.video_id].target_id != UNKNOWN)

    return sum(has_target(video) for video in labels)


def _no_videos(predictions: PredictionSet, config: EvaluateConfig) -> str:
    there = sorted(set(predictions.videos(columns=["split"])["split"].to_pylist()))
    return (
        f"evaluate: no prediction is of the splits {list(config.splits)}; predictions are of "
        f"{there or 'no video at all'}. Set splits to some of them, or predict those splits"
    )


def _metrics(
    work: Work, predictions: PredictionSet, *, summary: Mapping[str, Any], scores: Mapping[str, Any]
) -> dict[str, Any]:
    info = predictions.info
    return {
        "key": work.key,
        "predictions": info.key,
        "run": info.run,
        "task": info.task,
        "classes": list(info.classes),
        "headline": dict(summary),
        "splits": dict(scores),
    }


def _report(
    work: Work,
    predictions: PredictionSet,
    *,
    labels: list[VideoLabels],
    results: Mapping[str, VideoResult],
    scores: Mapping[str, Any],
    reporter: Reporter,
) -> Report:
    config = EvaluateConfig.model_validate(dict(work.config))
    info = predictions.info
    reference = work.inputs["predictions"][0]
    run_reference = find_stage(reference, "finetune") or find_stage(reference, "train")
    shown = worst_first(labels)[: config.report_videos]
    records = RunFolder(Store.at(work.store).run(info.run)).metrics()
    counts = sum((np.bincount(video.label_ids, minlength=len(info.classes)) for video in labels), np.zeros(1, np.int64))
    return Report(
        title=f"{work.node}: {', '.join(config.splits)}",
        info=info,
        config=config,
        scores=scores,
        predicted_counts=[int(count) for count in counts],
        records=records,
        cards=_cards(work, predictions, shown=shown, results=results, reporter=reporter),
        num_videos=len(labels),
        facts=_facts(reference, run_reference, task=info.task, run=info.run) | making_facts(work),
        making=making_sections(work),
        embeddings=_map(work, config, predictions, labels=labels, reporter=reporter),
    )


def _map(
    work: Work, config: EvaluateConfig, predictions: PredictionSet, *, labels: Sequence[VideoLabels], reporter: Reporter
) -> Section | None:
    """The map of embeddings, coloured by the true label of each row."""
    if TASKS[predictions.info.task].of_sets:
        if config.embeddings is not None:
            reporter.note("the rows of these predictions have several labels or none: no map of embeddings is drawn")
        return None
    info = predictions.info
    classes = np.array([*info.classes, None], dtype=object)  # of UNKNOWN, -1: none

    def labels_of(digests: set[str]) -> dict[str, LabelAt]:
        names = {video.video_id: video.digest for video in labels if video.digest in digests}
        return {
            names[video_id]: labels_of_rows(line.edges_seconds[:-1].tolist(), classes[line.target_ids].tolist())
            for video_id, line in timelines(predictions, unit=main_unit(info), video_ids=set(names))
        }

    return drawn_map(work, [video.digest for video in labels], labels_of, config=config, reporter=reporter)


def _cards(
    work: Work,
    predictions: PredictionSet,
    *,
    shown: Sequence[VideoLabels],
    results: Mapping[str, VideoResult],
    reporter: Reporter,
) -> list[VideoCard]:
    config = EvaluateConfig.model_validate(dict(work.config))
    names = {video.video_id for video in shown}
    lines = dict(timelines(predictions, unit=main_unit(predictions.info), video_ids=names))
    known = {entry["digest"]: entry for entry in work.payload.get("videos", ())}
    items = {video.video_id: _item(known.get(video.digest, {}), video) for video in shown}
    wanted = [
        Wanted(item=items[name], times=_times(line, items[name], number=config.thumbnails))
        for name, line in lines.items()
    ]
    reference = work.inputs["predictions"][0]
    decode = find_stage(reference, "decode")
    frames = Store.at(work.store).frames(decode.key) if decode else None
    reporter.note(f"pictures of {len(wanted)} videos for the report")
    found = pictures(wanted, predictions=reference, frames=frames)
    return [
        VideoCard(
            labels=video,
            timeline=lines[video.video_id],
            result=results.get(video.video_id),
            duration_seconds=items[video.video_id].duration_seconds,
            thumbnails=tuple(found[video.video_id].thumbnails),
            note=found[video.video_id].note,
            address=file_address(items[video.video_id].path),
        )
        for video in shown
    ]


def _item(known: Mapping[str, Any], video: VideoLabels) -> VideoItem:
    """The video's file, when it is known; a path that is not there otherwise."""
    return VideoItem(
        digest=video.digest,
        path=str(known.get("path", "")) or "unknown",
        video_id=video.video_id,
        duration_seconds=known.get("duration_seconds"),
    )


def _times(line: Timeline, item: VideoItem, *, number: int) -> tuple[float, ...]:
    """Times of pictures, spread over the axis; none after the last row, where a file may have no frame any more."""
    axis = axis_of(line, item.duration_seconds)
    last = float(line.edges_seconds[-2])
    times = slice_times(axis.start_seconds, axis.stop_seconds, number=number) if number else []
    return tuple(dict.fromkeys(max(0.0, min(time, last)) for time in times))


def _facts(reference: InputRef, run_reference: InputRef | None, *, task: str, run: str) -> dict[str, str]:
    facts = {"task": task, "predictions": f"{reference.node} {reference.key[:12]}"}
    if run_reference is not None:
        model = run_reference.config.get("model") or {}
        facts["run"] = f"{run_reference.node} {run[:12]}"
        facts |= {"model": str(model["name"])} if "name" in model else {}
    embed = find_stage(reference, "embed")
    if embed is not None and embed.config.get("encoder"):
        facts["encoder"] = str(embed.config["encoder"])
    return facts
