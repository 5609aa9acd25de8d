"""Targets, windows, scores and metrics of every task, label kind and sampling are those of an independent computation.

`recompute.py` knows the documentation and nothing of the product. It is given the files that people write (features,
manifest, tables of labels), the weights that were saved, and what was published, and has to come to the same.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file

from reelwright.pipeline.project import Project
from tests.oracle.recompute import (
    NOTHING,
    SETS,
    Case,
    Labels,
    Row,
    Window,
    action_metrics,
    gru_logits,
    label_of_row,
    one_label_metrics,
    probabilities,
    read_labels,
    scored_units,
    set_metrics,
    target_of_window,
    windows_of,
)
from tests.small_project import write_rows

# Video -> split and rows: some shorter than a window; `bare` and `still` have a line in no table
VIDEOS = {
    "a": ("train", 9),
    "b": ("train", 22),
    "short": ("train", 3),
    "c": ("train", 31),
    "bare": ("train", 8),
    "d": ("val", 8),
    "e": ("val", 11),
    "f": ("test", 10),
    "tiny": ("test", 2),
    "g": ("test", 13),
    "still": ("test", 7),
}
WITHOUT_LINES = ("bare", "still")
NAMES = ("mix", "cut", "add")
KINDS = {
    "column": {"column": "kind"},
    "segments": {"segments": "segments.csv"},
    "segments, background": {"segments": "segments.csv", "background": "cut"},
    "segments, classes": {"segments": "segments.csv", "classes": ["mix", "cut", "add", "none"], "background": "none"},
    "frames": {"rows": "frames.csv"},
    "frames, background": {"rows": "frames.csv", "background": "mix"},
    "times": {"rows": "times.csv"},
    "times, background": {"rows": "times.csv", "background": "add"},
    "steps": {"steps": "steps.csv"},
    "steps, background": {"steps": "steps.csv", "background": "add"},
    "verb, noun": {"columns": {"verb": "verb", "noun": "noun"}},
    "noun, verb": {"columns": {"noun": "noun", "verb": "verb"}},
    "three heads": {"columns": {"z": "verb", "a": "kind", "m": "noun"}},
}
OF_ROWS = [kind for kind in KINDS if "steps" not in kind and "columns" not in KINDS[kind]]
HEADS = [kind for kind in KINDS if "columns" in KINDS[kind]]
CLIPS = ("segments", "dense", "multi_start")
DRAWN = ("grid", "random", "all", "per_video")
TRAINED = {
    "uses": "train",
    "embeddings": ["rows"],
    "model": {"name": "gru", "width": 4, "dropout": 0.0},
    "epochs": 1,
    "batch_size": 8,
    "optimizer": {"lr": 0.05},
    "checkpoint_every": 9,
}
PREDICTED: list[dict[str, Any]] = [
    {},
    {"hop": 2},
    {"hop": 3, "to_end": True},
    {"hop": 6, "to_end": False},  # leaves rows out
    {"length": 5, "hop": 2, "pad": False},
    {"dilation": 2, "hop": 2},
]


def cases() -> dict[str, Case]:
    """Every task with every kind of label that it can learn from, and every sampling; windows of predict in turn."""
    found: dict[str, Case] = {}

    def add(kind: str, task: str, sampling: str, *, of_window: str = "any", **window: Any) -> None:
        number = len(found)
        shape = {"length": 4, "hop": 1 + number % 3, "dilation": 1 + number % 2, "sampling": sampling, **window}
        asked = PREDICTED[number % len(PREDICTED)]
        if sampling in CLIPS:
            asked = {"views": 1 + number % 3, **({"hop": 2} if sampling == "multi_start" else {})}
        found[f"{task} {of_window}: {kind}: {sampling}{window or ''}"] = Case(
            task=task, labels=KINDS[kind], train_window=shape, predict_window=asked, of_window=of_window
        )

    for kind, task in itertools.product(OF_ROWS, ("last_row", "majority", "per_row")):
        balanced = () if "classes" in kind else ("balanced",)  # one of its classes is in no window
        for sampling in (*DRAWN, *balanced, *_events(kind)):
            add(kind, task, sampling)
    for kind, of_window in itertools.product([kind for kind in KINDS if kind not in HEADS[1:]], ("any", "net_change")):
        for sampling in (*DRAWN, *_events(kind)):
            add(kind, "multi_label", sampling, of_window=of_window)
    for kind, task in (("column", "video"), *((kind, "heads") for kind in HEADS)):
        for sampling in (*DRAWN, *CLIPS):
            add(kind, task, sampling)
        add(kind, task, "segments", segments=2, dilation=2)
        add(kind, task, "dense", pad=False)
    return found


def _events(kind: str) -> tuple[str, ...]:
    """Events are starts of segments and times of steps."""
    return ("events",) if "segments" in kind or "steps" in kind else ()


CASES = cases()
QUICK = [
    "per_row any: segments, background: grid",
    "multi_label any: frames: grid",
    "multi_label net_change: frames: grid",
    "multi_label any: times: grid",
    "heads any: verb, noun: segments",
    "heads any: noun, verb: grid",
]


@dataclass(frozen=True)
class Found:
    """What was published, saved and written of one case."""

    case: Case
    labels: Labels
    features: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]]  # rows of windows, rows and videos.parquet
    metrics: dict[str, Any]  # metrics.json
    weights: dict[str, Any]
    run: dict[str, Any]  # config.yaml
    validated: dict[str, float]  # the line of metrics.jsonl


def write_files(folder: Path) -> None:
    """Features, a manifest with labels of videos, and tables of each kind; all drawn, in an order that says nothing."""
    random = np.random.default_rng(7)
    rows = []
    for number, (name, (split, num_rows)) in enumerate(VIDEOS.items()):
        np.save(folder / f"{name}.npy", random.normal(0, 1, (num_rows, 3)).astype(np.float32))
        own = {
            "kind": NAMES[number % 3],
            "verb": ("take", "put")[number % 2],
            "noun": ("lid", "cup", "jar")[number % 3],
        }
        unknown = {"bare": ("kind", "verb", "noun"), "b": ("verb",), "e": ("noun",), "g": ("verb",)}.get(name, ())
        known = {column: "" if column in unknown else value for column, value in own.items()}
        rows.append({"video_id": name, "path": f"{name}.npy", "split": split, **known})
    write_rows(folder / "videos.csv", rows)
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, (_, num_rows) in VIDEOS.items():
        if name in WITHOUT_LINES:
            continue
        seconds, frames = num_rows * 0.2 + 0.1, num_rows * 2 + 1

        def when(seconds: float = seconds) -> float:
            return round(float(random.uniform(0, seconds)), 1)

        for _ in range(max(2, num_rows // 2)):
            start = when()
            stop = round(start + float(random.uniform(0.2, 0.9)), 1)
            lines["segments"].append({"video_id": name, "start_seconds": start, "stop_seconds": stop})
            lines["times"].append({"video_id": name, "time_seconds": when()})
            lines["steps"].append({"video_id": name, "time_seconds": when()})
        lines["times"].append(dict(lines["times"][-1]))  # two labels of one time
        chosen = [frame for frame in range(frames) if random.random() < 0.8] or [0]
        lines["frames"] += [{"video_id": name, "frame": frame} for frame in [*chosen, chosen[0]]]
    for kind, table in lines.items():
        label = "step" if kind == "steps" else "label"
        named = [{**line, label: NAMES[random.integers(3)]} for line in table]
        write_rows(folder / f"{kind}.csv", [named[place] for place in random.permutation(len(named))])


def run_cases(folder: Path, names: list[str]) -> dict[str, Found]:
    """All ``names`` as nodes of one pipeline, run, and what came of each."""
    write_files(folder)
    stages: dict[str, Any] = {"rows": {"uses": "features", "fps": 10, "hop": 2, "length": 3}}
    for number, name in enumerate(names):
        case = CASES[name]
        stages[f"t{number}"] = {
            **TRAINED,
            "task": case.task,
            "labels": dict(case.labels),
            "window": dict(case.train_window),
            "seed": number,
            **({"labels_of_window": case.of_window} if case.task == "multi_label" else {}),
        }
        stages[f"p{number}"] = {"uses": "predict", "run": f"t{number}", "window": dict(case.predict_window)}
        scores = {"uses": "evaluate", "predictions": f"p{number}", "splits": ["val", "test"], "report": False}
        stages[f"s{number}"] = scores
    text = json.dumps({"videos": {"manifest": "videos.csv"}, "stages": stages})  # JSON is YAML, in the order given
    (folder / "reelwright.yaml").write_text(text)
    project = Project.open(folder / "reelwright.yaml")
    result = project.run(keep_going=True)
    assert not (failed := [(node.node, node.message) for node in result.nodes if node.message]), failed
    features = {name: np.load(folder / f"{name}.npy") for name in VIDEOS}
    planner = project.planner()
    found = {}
    for number, name in enumerate(names):
        case, keys = CASES[name], [planner.plan(f"{letter}{number}").key for letter in "tps"]
        run = project.file.store.run(keys[0])
        tables = project.file.store.predictions(keys[1])
        found[name] = Found(
            case,
            read_labels(folder, case.labels),
            features,
            {unit: pq.read_table(tables / f"{unit}.parquet").to_pylist() for unit in ("windows", "rows", "videos")},
            json.loads((project.file.store.report(keys[2]) / "metrics.json").read_text()),
            load_file(run / "model.safetensors"),
            yaml.safe_load((run / "config.yaml").read_text()),
            json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]),
        )
    return found


def logits_of(found: Found, video: str, window: Window) -> Any:
    """(rows, K) of a window."""
    return gru_logits(found.weights, found.features[video][list(window.rows)])


def target_in(row: dict[str, Any], task: str) -> Any:
    if task in SETS:
        return None if row["targets"] is None else {k for k, present in enumerate(row["targets"]) if present}
    return NOTHING if row["target_id"] is None else row["target_id"]


def check_windows(found: Found) -> list[tuple[str, Any, Any]]:
    """Windows, their times, scores and targets; returns (video, published scores, own target)."""
    case, labels = found.case, found.labels
    as_published = Case(**{**vars(case), "task": "last_row"}) if case.task == "per_row" else case
    entries, rows = [], iter(found.tables["windows"])
    for video in sorted(VIDEOS):
        for number, window in enumerate(windows_of(case, len(found.features[video]), training=False)):
            row = next(rows)
            place = {"video_id": video, "split": VIDEOS[video][0], "window": number}
            place |= {"start_row": window.rows[0], "stop_row": window.rows[-1] + 1}
            place |= {"start_seconds": window.first.start, "stop_seconds": window.last.stop}
            place |= {"time_seconds": window.last.start}
            assert {name: row[name] for name in place} == place
            own = probabilities(case, labels, logits_of(found, video, window)[-1])
            np.testing.assert_allclose(row["scores"], own, atol=2e-6)
            assert row["label"] == labels.classes[int(np.argmax(row["scores"]))]
            target = target_of_window(as_published, labels, video, window)
            assert target_in(row, case.task) == target, (video, window)
            entries.append((video, row["scores"], target))
    assert next(rows, None) is None
    return entries


def check_rows(found: Found) -> list[tuple[str, Any, Any]]:
    """Rows that a window speaks of: their scores are means over windows (per_row), or those of the window's end."""
    case, labels, entries = found.case, found.labels, []
    published = defaultdict(list)
    for row in found.tables["rows"]:
        published[row["video_id"]].append(row)
    for video, (_, num_rows) in VIDEOS.items():
        said: list[tuple[int, Any]] = []
        by_row: dict[int, list[Any]] = defaultdict(list)
        for window in windows_of(case, num_rows, training=False):
            scores = probabilities(case, labels, logits_of(found, video, window))
            said.append((window.rows[-1], scores[-1]))
            for number, of_row in zip(window.rows, scores, strict=True):
                by_row[number].append(of_row)
        if case.task == "per_row":
            said = [(number, np.mean(by_row[number], axis=0)) for number in sorted(by_row)]
        said.sort(key=lambda entry: entry[0])
        assert [row["row"] for row in published[video]] == [number for number, _ in said]
        for row, (number, own) in zip(published[video], said, strict=True):
            np.testing.assert_allclose(row["scores"], own, atol=2e-6)
            place = Row(number)
            assert (row["start_seconds"], row["stop_seconds"]) == (place.start, place.stop)
            assert row["source_start"] == place.frames.start
            target = None if case.task in SETS else label_of_row(labels, video, place)
            assert row["target_id"] == (None if target == NOTHING else target), (video, number)
            entries.append((video, row["scores"], target))
    return entries


def check_videos(found: Found) -> list[tuple[str, Any, Any]]:
    """The mean over a video's windows."""
    case, entries = found.case, []
    by_video = defaultdict(list)
    for row in found.tables["windows"]:
        by_video[row["video_id"]].append(row["scores"])
    assert [row["video_id"] for row in found.tables["videos"]] == sorted(by_video)
    for row in found.tables["videos"]:
        video = row["video_id"]
        np.testing.assert_allclose(row["scores"], np.mean(by_video[video], axis=0), atol=2e-6)
        assert row["num_windows"] == len(by_video[video])
        target = target_of_window(case, found.labels, video, None)
        assert target_in(row, case.task) == target, video
        entries.append((video, row["scores"], target))
    return entries


def check_metrics(found: Found, tables: dict[str, list[tuple[str, Any, Any]]]) -> None:
    expected = {}
    for name, splits in (("val", {"val"}), ("test", {"test"}), ("all", {"val", "test"})):
        chosen = {
            unit: [entry for entry in entries if VIDEOS[entry[0]][0] in splits] for unit, entries in tables.items()
        }
        units = scored_units(found.case, found.labels, chosen)
        expected |= {name: units} if units else {}
    assert found.metrics["classes"] == list(found.labels.classes)
    same(found.metrics["splits"], expected)


def check_validation(found: Found) -> None:
    """The metrics that training chose its weights by, of windows that nothing published: only the weights know."""
    case, labels = found.case, found.labels
    scores, truth = [], []
    for video in (video for video, (split, _) in VIDEOS.items() if split == "val"):
        for window in windows_of(case, len(found.features[video]), training=True):
            target = target_of_window(case, labels, video, window)
            own = probabilities(case, labels, logits_of(found, video, window))
            if case.task == "per_row":
                scores += list(own)
                truth += target
            elif target not in (None, NOTHING):
                scores.append(own[-1])
                truth.append(target)
    if case.task == "heads":
        numbers = action_metrics(scores, truth, labels.heads)
    elif case.task == "multi_label":
        numbers = set_metrics(scores, truth, [set(range(len(labels.classes)))] * len(truth))
    else:
        numbers = one_label_metrics(scores, truth)
    expected = {f"val_{name}": value for name, value in numbers.items() if isinstance(value, float)}
    measured = {name: value for name, value in found.validated.items() if name.startswith("val_")}
    measured.pop("val_loss")
    same(measured, expected)


def same(found: Any, expected: Any, where: str = "") -> None:
    """Equal structure, numbers to 1e-6."""
    if isinstance(expected, dict):
        assert list(found) == list(expected) or set(found) == set(expected), where
        for name, value in expected.items():
            same(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, (left, right) in enumerate(zip(found, expected, strict=True)):
            same(left, right, f"{where}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-6), where
    else:
        assert found == expected, where


def check(found: Found) -> None:
    assert found.run["classes"] == list(found.labels.classes)
    tables = {"windows": check_windows(found), "rows": check_rows(found), "videos": check_videos(found)}
    check_metrics(found, tables)
    check_validation(found)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    return run_cases(tmp_path_factory.mktemp("oracle"), QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_an_independent_computation_comes_to_the_same(quick: dict[str, Found], name: str) -> None:
    check(quick[name])


PARTS = [list(CASES)[start : start + 12] for start in range(0, len(CASES), 12)]  # a pipeline each


@pytest.mark.slow
@pytest.mark.parametrize("names", PARTS, ids=lambda names: names[0])
def test_so_it_does_for_every_task_kind_of_label_and_sampling(tmp_path: Path, names: list[str]) -> None:
    for found in run_cases(tmp_path, names).values():
        check(found)
