"""Evaluate: scores of predictions, as JSON and CSV, and the report; the folder is written in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reelwright.stages.base.work import Reporter, Work
from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.embedding_map import LabelAt, drawn_map, labels_of_rows
from reelwright.stages.evaluate.evaluators import EVALUATORS, own_scores
from reelwright.stages.evaluate.intervals import headline_intervals
from reelwright.stages.evaluate.pages.frame_source import find_stage, items_of, pictures
from reelwright.stages.evaluate.pages.page import Section, render
from reelwright.stages.evaluate.pages.report import Report, VideoCard, page_of
from reelwright.stages.evaluate.pages.ribbons import axis_of
from reelwright.stages.evaluate.pages.thumbnails import slice_times
from reelwright.stages.evaluate.provenance import file_address, left_out_notes, provenance_facts, provenance_sections
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
        there = sorted(set(predictions.videos(columns=["split"])["split"].to_pylist()))
        raise StageError(
            f"evaluate: no prediction is of the splits {list(config.splits)}; predictions are of "
            f"{there or 'no video at all'}. Set splits to some of them, or predict those splits"
        )
    results = video_results(predictions)
    tables = unit_tables(predictions)
    found = score_predictions(predictions, labels, config, tables=tables)
    scores = {name: units for name, units in found.items() if units}
    splits = splits_of(video.split for video in labels)
    own = own_scores(predictions, config.evaluators, splits=splits, plugins=work.plugins)
    intervals, notes = headline_intervals(tables, labels, config, info=info)
    num_scored = sum(_has_target(video, results.get(video.video_id)) for video in labels)
    summary: dict[str, Any] = {"num_videos": len(labels), "num_scored": num_scored, **headline(scores, info)}
    summary |= {"intervals": intervals} if intervals else {}
    summary |= {f"{name}_{number}": value for name, found in overall(own).items() for number, value in found.items()}
    for note in (*left_out_notes(work), *notes):
        reporter.note(note)
    if not scores:
        reporter.note("no video has a target: nothing is scored, the report shows what was predicted")
    metrics = {
        "key": work.key,
        "predictions": info.key,
        "run": info.run,
        "task": info.task,
        "classes": list(info.classes),
        "headline": summary,
        "splits": scores,
        **({EVALUATORS: own} if own else {}),
    }
    with replacing_folder(store.report(work.key)) as folder:
        write_json(folder / "metrics.json", metrics)
        write_csv(folder / "per_video.csv", video_lines(labels, results, info=info, config=config))
        confusion = scores and overall(scores).get(main_unit(info), {}).get("confusion")
        if confusion:
            write_csv(folder / "confusion.csv", confusion_lines(confusion, info.classes))
        if config.report:
            pages = _Pages(work=work, reporter=reporter, config=config, predictions=predictions, labels=labels)
            label_ids = np.concatenate([video.label_ids for video in labels])
            report = Report(
                title=f"{work.node}: {', '.join(config.splits)}",
                info=info,
                config=config,
                scores=scores,
                predicted_counts=np.bincount(label_ids, minlength=len(info.classes)).tolist(),
                records=RunFolder(store.run(info.run)).metrics(),
                cards=pages.cards(results),
                num_videos=len(labels),
                facts=pages.facts() | provenance_facts(work),
                provenance=provenance_sections(work),
                embeddings=pages.embeddings(),
                own=overall(own),
                intervals=intervals,
                interval_notes=notes,
            )
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


def _has_target(video: VideoLabels, result: VideoResult | None) -> bool:
    return video.quality is not None or (result is not None and result.target_id != UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class _Pages:
    """What the report shows beside the scores."""

    work: Work
    reporter: Reporter
    config: EvaluateConfig
    predictions: PredictionSet
    labels: Sequence[VideoLabels]

    def embeddings(self) -> Section | None:
        """The map of embeddings, coloured by the true label of each row."""
        info = self.predictions.info
        if TASKS[info.task].of_sets:
            if self.config.embeddings is not None:
                note = "the rows of these predictions have several labels or none: no map of embeddings is drawn"
                self.reporter.note(note)
            return None
        classes = np.array([*info.classes, None], dtype=object)  # of UNKNOWN, -1: none

        def labels_of(digests: set[str]) -> dict[str, LabelAt]:
            names = {video.video_id: video.digest for video in self.labels if video.digest in digests}
            return {
                names[video_id]: labels_of_rows(line.edges_seconds[:-1].tolist(), classes[line.target_ids].tolist())
                for video_id, line in timelines(self.predictions, unit=main_unit(info), video_ids=set(names))
            }

        digests = [video.digest for video in self.labels]
        return drawn_map(self.work, digests, labels_of, config=self.config, reporter=self.reporter)

    def cards(self, results: Mapping[str, VideoResult]) -> list[VideoCard]:
        """The videos to look at first, with pictures spread over their time."""
        shown = worst_first(self.labels)[: self.config.report_videos]
        names = {video.video_id for video in shown}
        lines = dict(timelines(self.predictions, unit=main_unit(self.predictions.info), video_ids=names))
        items = items_of(self.work.payload, {video.video_id: video.digest for video in shown})
        wanted = {}
        for name, line in lines.items():
            axis = axis_of(line, items[name].duration_seconds)
            times = slice_times(axis.start_seconds, axis.stop_seconds, number=self.config.thumbnails)
            last = float(line.edges_seconds[-2])  # after the last row a file may have no frame any more
            wanted[items[name]] = tuple(dict.fromkeys(max(0.0, min(time, last)) for time in times))
        self.reporter.note(f"pictures of {len(wanted)} videos for the report")
        predictions, store = self.work.inputs["predictions"][0], Store.at(self.work.store)
        found = pictures(wanted, predictions=predictions, store=store)
        return [
            VideoCard(
                labels=video,
                timeline=lines[video.video_id],
                result=results.get(video.video_id),
                duration_seconds=items[video.video_id].duration_seconds,
                pictures=found[video.video_id],
                address=file_address(items[video.video_id].path),
            )
            for video in shown
        ]

    def facts(self) -> dict[str, str]:
        """What the predictions were made with."""
        info, reference = self.predictions.info, self.work.inputs["predictions"][0]
        facts = {"task": info.task, "predictions": f"{reference.node} {reference.key[:12]}"}
        for run_reference in reference.inputs.get("run", ()):
            model = run_reference.config.get("model") or {}
            facts["run"] = f"{run_reference.node} {info.run[:12]}"
            facts |= {"model": str(model["name"])} if "name" in model else {}
        embed = find_stage(reference, "embed")
        if embed is not None and embed.config.get("encoder"):
            facts["encoder"] = str(embed.config["encoder"])
        return facts
