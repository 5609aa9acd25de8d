"""The tasks of probe: what each needs of the videos, what it measures, and which of its numbers are shown to people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from reelwright.models.metrics.probes.alignment import alignment_errors
from reelwright.models.metrics.probes.embedded_videos import UNKNOWN, EmbeddedVideo
from reelwright.models.metrics.probes.frame_retrieval import frame_retrieval, time_retrieval
from reelwright.models.metrics.probes.kendalls_tau import kendalls_tau
from reelwright.models.metrics.probes.linear_probe import LinearProbe, linear_probe
from reelwright.models.metrics.probes.phase_probe import phase_classification
from reelwright.models.metrics.probes.probe_protocol import LabelFractions, per_action
from reelwright.models.metrics.probes.progression import phase_progression
from reelwright.stages.base.work import InputRef
from reelwright.stages.probe.config import ProbeConfig
from reelwright.stages.probe.intervals import score_intervals

Videos = Sequence[EmbeddedVideo]
Measure = Callable[[ProbeConfig, Videos, Videos], dict[str, Any]]  # training videos, measured videos


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """One task."""

    measure: Measure
    headline: Mapping[str, str]  # number of the result -> its name among the node's scores; NAME@* for all fractions
    fewest: int  # measured videos
    needs_labels: bool = True
    is_learnt: bool = False

    def skip_reason(self, train: Videos, test: Videos) -> str:
        """Why these videos are not enough; empty where they are."""
        suits = [video for video in test if video.has_labels] if self.needs_labels else test
        what = "labelled rows" if self.needs_labels else "rows"
        if len(suits) < self.fewest:
            return f"{len(suits)} videos of splits have {what}, {self.fewest} are needed"
        if self.is_learnt and not any(video.has_labels for video in train):
            return "no video of train_splits has labelled rows"
        return ""


def _fractions(config: ProbeConfig, *, fewest: int = 1) -> LabelFractions:
    return LabelFractions(fractions=config.fractions, seeds=config.seeds, fewest=fewest, compat=config.compat)


def _classification(config: ProbeConfig, train: Videos, test: Videos) -> dict[str, Any]:
    labels = _fractions(config)
    return _side_by_side(
        {name: phase_classification(train, test, classifier=name, labels=labels) for name in config.classifiers}
    )


def _progression(config: ProbeConfig, train: Videos, test: Videos) -> dict[str, Any]:
    if not config.compat or config.per_action:  # else ids as they are, which may leave gaps that compat refuses
        train, test = numbered_phases(train, test, by_id=config.compat)
    if max(int(video.label_of_rows.max()) for video in (*train, *test)) < 1:
        return {"r2": None, "num_phases": 1}  # one phase alone has no progress
    return phase_progression(train, test, labels=_fractions(config), compat=config.compat)


def _linear_probe(config: ProbeConfig, train: Videos, test: Videos) -> dict[str, Any]:
    how = LinearProbe(**config.linear_probe.model_dump(), compat=config.compat)
    return linear_probe(train, test, how=how, labels=_fractions(config, fewest=how.batch_videos))


def _search(config: ProbeConfig) -> dict[str, Any]:
    return {"depths": config.depths, "stride": config.stride, "distance": config.distance}


def _side_by_side(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """NAME_number of all, and the whole of each by its name."""
    flat = {
        f"{name}_{number}": value
        for name, values in found.items()
        for number, value in values.items()
        if value is None or isinstance(value, float)
    }
    return {**flat, **found}


def numbered_phases(
    train: Videos, test: Videos, *, by_id: bool = False
) -> tuple[list[EmbeddedVideo], list[EmbeddedVideo]]:
    """The same with labels 0, 1, ... in the order in which phases come, by the mean place of their rows in a video.

    Or in the order of their ids, without gaps.
    """
    places = defaultdict(list)
    for video in (*train, *test):
        labels = video.label_of_rows
        for label in np.unique(labels[labels != UNKNOWN]).tolist():
            places[label].append(float(np.flatnonzero(labels == label).mean()) / len(video))
    order = sorted(places, key=lambda label: (0.0 if by_id else float(np.mean(places[label])), label))
    of_label = np.full(max(places, default=0) + 2, UNKNOWN)  # the last one is that of UNKNOWN, -1
    of_label[order] = np.arange(len(order))

    def renamed(video: EmbeddedVideo) -> EmbeddedVideo:
        return replace(video, labels=None if video.labels is None else of_label[video.labels])

    return [renamed(video) for video in train], [renamed(video) for video in test]


TASKS: dict[str, ProbeTask] = {
    "phase_classification": ProbeTask(
        measure=_classification,
        headline={
            "logistic_accuracy": "phase_accuracy",
            "logistic_accuracy@*": "phase_accuracy@*",
            "logistic_chance": "chance_phase_accuracy",
            "svm_accuracy": "phase_accuracy_svm",
            "svm_accuracy@*": "phase_accuracy_svm@*",
            "svm_linear_accuracy": "phase_accuracy_svm_linear",
            "svm_linear_accuracy@*": "phase_accuracy_svm_linear@*",
            "logistic_wrong_rows": "phase_error_rows",
            "logistic_wrong_seconds": "phase_error_seconds",
        },
        fewest=1,
        is_learnt=True,
    ),
    "progression": ProbeTask(
        measure=_progression,
        headline={
            "r2": "progression_r2",
            "r2@*": "progression_r2@*",
            "error_rows": "progression_error_rows",
            "error_seconds": "progression_error_seconds",
        },
        fewest=1,
        is_learnt=True,
    ),
    "kendalls_tau": ProbeTask(
        measure=lambda config, _, test: kendalls_tau(
            test,
            stride=config.stride,
            stride_seconds=config.stride_seconds,
            distance=config.distance,
            compat=config.compat,
        ),
        headline={"kendalls_tau": "kendalls_tau"},
        fewest=2,
        needs_labels=False,
    ),
    "retrieval": ProbeTask(
        measure=lambda config, _, test: frame_retrieval(test, **_search(config)),
        headline={
            "precision@*": "precision@*",
            "average_precision@*": "average_precision@*",
            "chance": "chance_precision",
        },
        fewest=2,
    ),
    "time_retrieval": ProbeTask(
        measure=lambda config, _, test: time_retrieval(test, **_search(config)),
        headline={
            "time_error@*": "time_error@*",
            "time_error_seconds@*": "time_error_seconds@*",
            "chance": "chance_time_error",
        },
        fewest=2,
        needs_labels=False,
    ),
    "alignment": ProbeTask(
        measure=lambda config, _, test: _side_by_side(
            {name: alignment_errors(test, method=name, distance=config.distance) for name in config.alignments}
        ),
        headline={
            f"{name}_error_{unit}": f"{name}_error_{unit}"
            for name in ("dtw", "nearest", "stretch")
            for unit in ("rows", "seconds")
        },
        fewest=2,
    ),
    "linear_probe": ProbeTask(
        measure=_linear_probe,
        headline={"accuracy": "linear_accuracy", "class_recall": "linear_class_recall"},
        fewest=1,
        is_learnt=True,
    ),
}


def measured(name: str, config: ProbeConfig, train: Videos, test: Videos) -> tuple[dict[str, Any], str]:
    """The numbers of one task, or why there are none; with `per_action`, of the actions that have enough videos.

    Raises ValueError (IndexError in compat) as the measures do.
    """
    task = TASKS[name]
    if not config.per_action:
        reason = task.skip_reason(train, test)
        return ({}, reason) if reason else (task.measure(config, train, test), "")
    actions = {video.action for video in test if video.action}
    fitting = {action for action in actions if not task.skip_reason(_of(train, action), _of(test, action))}
    if not fitting:
        reasons = {task.skip_reason(_of(train, action), _of(test, action)) for action in actions}
        return {}, f"no action has enough videos ({'; '.join(sorted(reasons)) or 'no video has a label of its own'})"
    chosen = [[video for video in videos if video.action in fitting] for videos in (train, test)]
    if task.is_learnt:
        found = per_action(lambda *groups: task.measure(config, *groups), *chosen)
    else:
        found = per_action(lambda group: task.measure(config, (), group), chosen[1])
    return {**found, "left_out": sorted(actions - fitting)}, ""


def _of(videos: Videos, action: str) -> list[EmbeddedVideo]:
    return [video for video in videos if video.action == action]


def headline(name: str, found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a task that are the node's scores."""
    scores = {}
    for number, shown in TASKS[name].headline.items():
        for own, value in found.items():
            start, at, share = own.partition("@")
            is_meant = own == number or (at and f"{start}@*" == number)
            if is_meant and isinstance(value, float):
                scores[shown.replace("*", share)] = value
    return scores


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What was measured of the rows of one node."""

    reference: InputRef
    output: str
    videos: Sequence[EmbeddedVideo] = field(repr=False)  # those that are measured
    tasks: Mapping[str, Mapping[str, Any]]
    skipped: Mapping[str, str]  # task -> why it has no numbers

    @property
    def scores(self) -> dict[str, float]:
        """The numbers for people, by name."""
        return {shown: value for name, found in self.tasks.items() for shown, value in headline(name, found).items()}

    @cached_property
    def intervals(self) -> dict[str, list[float]]:
        """[low, high] of `scores`, as far as they have one: none of means over actions."""
        of_actions = any("actions" in found for found in self.tasks.values())
        found = {} if of_actions else score_intervals(self.tasks)
        return {name: each for name, each in found.items() if name in self.scores}

    def plain(self) -> dict[str, Any]:
        """As metrics.json has it."""
        return {
            "embeddings": self.reference.key,
            "output": self.output,
            "tasks": dict(self.tasks),
            "skipped": dict(self.skipped),
        }
