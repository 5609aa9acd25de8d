"""Evaluate a steps node: metrics.json, CSV tables and the report; the folder is written in one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelwright.stages.base.work import Reporter, VideoItem, Work
from reelwright.stages.evaluate.config import EvaluateConfig
from reelwright.stages.evaluate.embedding_map import LabelAt, drawn_map, states_over_time
from reelwright.stages.evaluate.pages.frame_source import Pictures, items_of, pictures, source_settings
from reelwright.stages.evaluate.pages.page import Section, render
from reelwright.stages.evaluate.pages.step_report import StepReport, axis_of, page_of
from reelwright.stages.evaluate.pages.thumbnails import slice_times
from reelwright.stages.evaluate.provenance import left_out_notes, provenance_facts, provenance_sections
from reelwright.stages.evaluate.scoring import overall
from reelwright.stages.evaluate.step_scores import (
    StepVideo,
    curve_lines,
    event_lines,
    headline,
    score_steps,
    step_intervals,
    step_lines,
    step_videos,
    video_lines,
)
from reelwright.stages.evaluate.tables import write_csv, write_json
from reelwright.stages.steps.procedure import read_procedure
from reelwright.storage.errors import StageError
from reelwright.storage.files import replacing_folder
from reelwright.storage.results.steps import StepSet
from reelwright.storage.store import Store


def run_steps(work: Work, reporter: Reporter) -> dict[str, Any]:
    """Score the steps of one node.

    Writes `Store.report(key)`: metrics.json, per_video.csv, per_step.csv, delay_curve.csv, events.csv, report.html and
    videos/*.mp4.
    Returns the headline numbers with `num_videos`, `num_scored` and `intervals` ([low, high] by number); where no
    video has known steps, num_scored is 0 and there are no scores. Raises StageError when no video is in the splits
    asked for.
    """
    config = EvaluateConfig.model_validate(dict(work.config))
    store, reference = Store.at(work.store), work.inputs["predictions"][0]
    steps = StepSet(store.output("steps", reference.key))
    info = steps.info
    videos = step_videos(steps, splits=config.splits, settings=config.steps)
    if not videos:
        there = sorted(set(steps.videos()["split"].to_pylist()))
        raise StageError(f"evaluate: no video is of the splits {list(config.splits)}; steps are of {there}. Set splits")
    scores = score_steps(videos, info=info)
    num_scored = sum(video.performance is not None for video in videos)
    summary: dict[str, Any] = {"num_videos": len(videos), "num_scored": num_scored, **headline(scores)}
    intervals = step_intervals(videos, info=info)
    summary |= {"intervals": intervals} if intervals else {}
    for note in left_out_notes(work):
        reporter.note(note)
    if not scores:
        reporter.note("of no video it is known which steps were completed: nothing is scored")
    metrics = {
        "key": work.key,
        "steps": info.key,
        "procedure": info.procedure,
        "decoder": info.decoder,
        "variant": config.steps.variant,
        "pos_tie_window": config.steps.pos_tie_window,
        "headline": summary,
        "splits": scores,
    }
    pages = _Pages(work=work, reporter=reporter, config=config, steps=steps, videos=videos)
    with replacing_folder(store.report(work.key)) as folder:
        write_json(folder / "metrics.json", metrics)
        write_csv(folder / "per_video.csv", video_lines(videos, info=info))
        write_csv(folder / "events.csv", event_lines(videos, info=info))
        if scores:
            write_csv(folder / "per_step.csv", step_lines(overall(scores)["per_step"]))
            write_csv(folder / "delay_curve.csv", curve_lines(overall(scores)["delay_curve"]))
        films = pages.films(folder) if config.steps.videos else {}
        if config.report:
            shown = worst_first(videos)[: config.report_videos]
            report = StepReport(
                title=f"{work.node}: {', '.join(config.splits)}",
                info=info,
                scores=scores,
                shown=shown,
                num_videos=len(videos),
                pictures=pages.pictures(shown),
                facts=pages.facts() | provenance_facts(work),
                films=films,
                embeddings=pages.embeddings(),
                intervals=intervals,
                provenance=provenance_sections(work),
            )
            (folder / "report.html").write_text(render(page_of(report)), encoding="utf-8")
    return summary


def worst_first(videos: Sequence[StepVideo]) -> list[StepVideo]:
    """By F1, then POS; those without a known truth last."""

    def rank(video: StepVideo) -> tuple[bool, float, float]:
        found = video.performance
        return (True, 0.0, 0.0) if found is None else (False, found.f1, found.pos)

    return sorted(videos, key=rank)


@dataclass(frozen=True, kw_only=True)
class _Pages:
    """What the report shows beside the scores."""

    work: Work
    reporter: Reporter
    config: EvaluateConfig
    steps: StepSet
    videos: Sequence[StepVideo]

    def facts(self) -> dict[str, str]:
        """What the steps were made with."""
        info, (reference,) = self.steps.info, self.work.inputs["predictions"]
        facts = {"steps": f"{reference.node} {reference.key[:12]}", "procedure": info.procedure}
        facts |= {"decoder": info.decoder, "variant": self.config.steps.variant}
        if info.decoder != "naive":
            facts |= {"threshold": f"{info.extra['threshold']:g}", "decay": f"{info.extra['decay']:g}"}
        if info.window is not None:
            facts |= {"window": f"{info.window} frames"}
        return facts | {ref.node: ref.key[:12] for ref in reference.inputs.get("predictions", ())}

    def pictures(self, shown: Sequence[StepVideo]) -> dict[str, Pictures]:
        """Pictures of recordings, spread over their time."""
        self.reporter.note(f"pictures of {len(shown)} videos for the report")
        items, wanted = self._items(shown), {}
        for video in shown:
            axis, number = axis_of(video), self.config.thumbnails
            wanted[items[video.video_id]] = slice_times(axis.start_seconds, axis.stop_seconds, number=number)
        return pictures(wanted, predictions=self.work.inputs["predictions"][0], store=Store.at(self.work.store))

    def films(self, folder: Path) -> dict[str, str]:
        """Write videos with the steps below them; returns their places in the report's ``folder`` by video_id."""
        from reelwright.stages.evaluate.step_overlay import write_overlays

        (folder / "videos").mkdir()
        chosen = worst_first(self.videos)[: self.config.steps.videos]
        self.reporter.note(f"videos of {len(chosen)} recordings with their steps")
        items = self._items(chosen)
        places = {
            video.video_id: f"videos/{place:03d}-{_safe(video.video_id)}.mp4" for place, video in enumerate(chosen)
        }
        jobs = [(video, items[video.video_id], folder / places[video.video_id]) for video in chosen]
        source = source_settings(self.work.inputs["predictions"][0])
        for video_id, note in write_overlays(jobs, step_names=self.steps.info.step_names, source=source).items():
            self.reporter.note(f"{video_id}: {note}")
        return {video_id: place for video_id, place in places.items() if (folder / place).exists()}

    def embeddings(self) -> Section | None:
        """The map of embeddings, coloured by the true state of the procedure."""
        if self.config.embeddings is None:
            return None
        procedure = read_procedure(Path(str(self.work.inputs["predictions"][0].config["procedure"])))
        done: dict[str, list[tuple[float, int]]] = {video.digest: [] for video in self.videos}
        truth = self.steps.truth().select(["video_digest", "time_seconds", "step_id"])
        for digest, seconds, step in zip(*(truth[name].to_pylist() for name in truth.column_names), strict=True):
            if digest in done:
                done[digest].append((seconds, step))
        known = [video for video in self.videos if video.performance is not None]
        initial = {video.digest: procedure.initial(video.procedure) for video in known}

        def labels_of(digests: set[str]) -> dict[str, LabelAt]:
            return {name: states_over_time(start, done[name]) for name, start in initial.items() if name in digests}

        return drawn_map(self.work, list(initial), labels_of, config=self.config, reporter=self.reporter)

    def _items(self, videos: Sequence[StepVideo]) -> dict[str, VideoItem]:
        return items_of(self.work.payload, {video.video_id: video.digest for video in videos})


def _safe(video_id: str) -> str:
    """A part of a file name that every system takes."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in video_id)[:60]
