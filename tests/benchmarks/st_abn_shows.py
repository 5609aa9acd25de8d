"""What attention shows on actions: python -m tests.benchmarks.st_abn_shows FOLDER [--seeds N].

FOLDER is what `reelwright init --recipe st_abn FOLDER` wrote; its videos and maps are those of its store. Per seed the
same network is trained on the same maps in four forms:

attention branch    the recipe's
S = M = 1           as deep, with both classifiers, but nothing is gated (branch: ungated)
plain, as deep      without branch and gate (branch: false), the branch's bottlenecks behind the others
plain               without branch and gate

Of all but the first, attention in space is Grad-CAM of the answer. Of the test videos:

accuracy        of the videos, in %
energy          attention in space inside the acting object's box, over the box's share of the frame; mean over the
                frames of the action (uniform: 1)
pointing        frames of the action whose highest place lies in the box, in % (uniform: the box's share)
time AUC        probability that attention in time is higher in a frame of the action than in another one of its video
AUC less place  the same of attention in time less its mean over all videos at that place of the window, so that what is
                the same in every video counts for nothing
directed        of the videos whose class has a mirror image (move_left, turn_right, ...), right answers in %
mirrored        of these, answers that are the mirror image, in %
flipped         of these, in %: played as mirror images, they are answered as the mirror image of their class

Maps are taken to cover the frame: preprocess of the recipe cuts nothing off.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf

from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import load_pipeline
from reelwright.pipeline.inspect.trained_model import pipeline_of_model
from reelwright.pipeline.project import Project
from reelwright.stages.base.video_writer import VideoWriter
from reelwright.storage.arrays.window_outputs import WindowOutputs
from tests.benchmarks.spread import spread_table

MODELS = ("attention branch", "S = M = 1", "plain, as deep", "plain")
METRICS = (
    *("accuracy", "energy", "pointing", "uniform pointing", "time AUC", "AUC less place"),
    *("directed", "mirrored", "flipped"),
)


class Truth(NamedTuple):
    """Of one frame: the object's box as shares of the frame (x0, y0, x1, y1), None where it is not seen."""

    box: tuple[float, float, float, float] | None
    acts: bool


def main() -> None:
    """Train, predict and measure what is not there yet; print mean and spread over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.st_abn_shows", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument("--set", action="append", default=[], help="a setting otherwise: stages.train.epochs=5")
    parser.add_argument("--model", action="append", choices=MODELS, help="only this one; repeatable")
    arguments = parser.parse_args()
    models = arguments.model or MODELS
    found = measure(arguments.folder, range(arguments.seeds), changes=arguments.set, models=models)
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def measure(
    folder: Path, seeds: range, *, changes: Sequence[str] = (), models: Sequence[str] = MODELS
) -> dict[str, list[dict[str, float]]]:
    """Of each model the figures of every seed."""
    path = (folder / "reelwright.yaml").absolute()
    content = OmegaConf.to_container(
        OmegaConf.merge(read_yaml(path), OmegaConf.from_dotlist(list(changes))), resolve=True
    )
    assert isinstance(content, dict)
    content["stages"] = stages_of(content["stages"], seeds, models=models)
    config = path.with_name("st_abn_shows.yaml")
    OmegaConf.save(OmegaConf.create(content), config)
    project = Project(load_pipeline(config, ()))
    _run(project)
    truth = read_truth(project)
    mirrored = write_mirrored(project, folder / "mirrored")
    return {model: [_figures(project, _name(model, seed), truth, mirrored) for seed in seeds] for model in models}


def _run(project: Project) -> None:
    result = project.run()
    if result.exit_code:
        sys.exit("\n".join(f"{node.node}: {node.message}" for node in result.nodes if node.state == "failed"))


def stages_of(stages: Mapping[str, Any], seeds: range, *, models: Sequence[str] = MODELS) -> dict[str, Any]:
    """The nodes up to the maps, and those of each model and seed."""
    made: dict[str, Any] = {name: stages[name] for name in ("frames", "maps")}
    layers = stages["train"]["model"].get("layers", 2)
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"branch": "ungated"},
        {"branch": False, "layers": 2 * layers},
        {"branch": False},
    )
    for seed in seeds:
        for model in models:
            options = dict(zip(MODELS, forms, strict=True))[model]
            name, train = _name(model, seed), dict(stages["train"])
            block = {**train["model"], **options}
            if options.get("branch") is False:
                train.pop("loss", None)  # of the branch
            if "branch" in options:
                block.pop("space", None)  # of a branch that gates
            made[name] = {**train, "seed": seed, "model": block}
            made[f"{name}_predict"] = {**stages["predict"], "run": name}
            made[f"{name}_scores"] = {**stages["scores"], "predictions": f"{name}_predict", "report": False}
    return made


def _name(model: str, seed: int) -> str:
    return f"{''.join(letter if letter.isalnum() else '_' for letter in model)}_{seed}"


def mirror_image(label: str) -> str:
    """The class of the mirrored video."""
    sides = {"left": "right", "right": "left"}
    return "_".join(sides.get(word, word) for word in label.split("_"))


def write_mirrored(project: Project, folder: Path) -> Path | None:
    """Mirror images of the test videos whose class changes with it, as files; None where there is none."""
    rate = project.file.videos.synthesize.fps  # type: ignore[union-attr]
    column = project.file.labels.column
    for video in project.planner().dataset.videos:
        label = str(video.extra.get(column, video.label))
        if video.split != "test" or mirror_image(label) == label:
            continue
        path = folder / f"{video.video_id.replace('/', '--')}.mp4"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            rows = project.frames("frames")[video.video_id]
            frames = rows.take(np.arange(rows.num_rows))[:, :, ::-1]
            with VideoWriter(path, size=(frames.shape[1], frames.shape[2]), fps=rate) as writer:
                for frame in frames:
                    writer.add(np.ascontiguousarray(frame))
    return folder if folder.is_dir() else None


def read_truth(project: Project) -> dict[str, list[Truth]]:
    """What is true of each frame of every video, by video_id."""
    source = project.file.videos.synthesize
    assert source is not None
    found: dict[str, list[Truth]] = defaultdict(list)
    folder = Path(project.planner().dataset.videos[0].path).parents[0]
    table = next(parent / "objects.csv" for parent in (folder, *folder.parents) if (parent / "objects.csv").is_file())
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            box = None
            if row["x"]:
                x, y, w, h = (float(row[name]) / source.size for name in "xywh")
                box = max(0.0, x), max(0.0, y), min(1.0, x + w), min(1.0, y + h)
            found[row["video_id"]].append(Truth(box, row["acts"] == "1"))
    return found


def _figures(
    project: Project, name: str, truth: Mapping[str, Sequence[Truth]], mirrored: Path | None
) -> dict[str, float]:
    kept = project.attention(f"{name}_predict")
    parts: dict[str, list[float]] = defaultdict(list)
    usual = usual_time(list(kept.values()))
    for video_id, outputs in kept.items():
        for key, values in of_video(outputs, truth[video_id], usual).items():
            parts[key] += values
    said = project.predictions(f"{name}_predict").videos(columns=["video_id", "label", "target"]).to_pylist()
    parts["accuracy"] = [100.0 * (row["label"] == row["target"]) for row in said]
    targets = {row["video_id"].replace("/", "--"): row["target"] for row in said}
    directed = [row for row in said if mirror_image(row["target"]) != row["target"]]
    parts["directed"] = [100.0 * (row["label"] == row["target"]) for row in directed]
    parts["mirrored"] = [100.0 * (row["label"] == mirror_image(row["target"])) for row in directed]
    if mirrored is not None:
        other = Project(pipeline_of_model(name, str(mirrored), (), config=project.file.path))
        _run(other)
        answers = other.predictions(list(other.file.nodes)[-1]).videos(columns=["video_id", "label"]).to_pylist()
        parts["flipped"] = [100.0 * (row["label"] == mirror_image(targets[row["video_id"]])) for row in answers]
    return {key: statistics.mean(values) for key, values in parts.items() if values}


def usual_time(videos: Sequence[WindowOutputs]) -> np.ndarray:
    """Mean attention in time (T,) at each place of a window; empty where there is none."""
    times = [outputs.output("attention.time") for outputs in videos if "time" in outputs.outputs]
    return np.concatenate(times).mean(axis=0) if times else np.zeros(0)


def of_video(outputs: WindowOutputs, truth: Sequence[Truth], usual: np.ndarray) -> dict[str, list[float]]:
    """Figures of the frames of one video that its windows show, and of the video itself; ``usual`` is `usual_time`."""
    found: dict[str, list[float]] = defaultdict(list)
    places, mask, space = outputs.places, outputs.mask, outputs.output("attention.space").astype(np.float64)
    for window, place in zip(*np.nonzero(mask), strict=True):
        frame = truth[places.row_source[window, place]]
        if not frame.acts or frame.box is None:
            continue
        share, inside, points = in_box(space[window, place], frame.box)
        if share > 0:
            found["energy"].append(inside / share)
            found["pointing"].append(100 * points)
            found["uniform pointing"].append(100 * share)
    if "time" in outputs.outputs:
        acts = np.array([truth[row].acts for row in places.row_source[mask]])
        if acts.any() and not acts.all():
            time = outputs.output("attention.time")
            found["time AUC"].append(auc(time[mask], acts))
            found["AUC less place"].append(auc((time - usual)[mask], acts))
    return found


def in_box(space_hw: np.ndarray, box: tuple[float, float, float, float]) -> tuple[float, float, bool]:
    """The box's share of a frame, that of attention inside it, and whether the highest place's middle lies in it."""
    x0, y0, x1, y1 = box
    height, width = space_hw.shape
    rows = np.clip(np.minimum(np.arange(1, height + 1), y1 * height) - np.maximum(np.arange(height), y0 * height), 0, 1)
    columns = np.clip(np.minimum(np.arange(1, width + 1), x1 * width) - np.maximum(np.arange(width), x0 * width), 0, 1)
    covered = rows[:, None] * columns[None]
    row, column = np.unravel_index(int(space_hw.argmax()), space_hw.shape)
    points = x0 <= (column + 0.5) / width < x1 and y0 <= (row + 0.5) / height < y1
    inside = float((space_hw * covered).sum() / max(space_hw.sum(), 1e-12))
    return float(covered.mean()), inside, bool(points)


def auc(values: np.ndarray, is_positive: np.ndarray) -> float:
    """Probability that a positive is above another one; ties count half."""
    difference = values[is_positive][:, None] - values[~is_positive][None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Mean and standard deviation over the seeds."""
    shown = [name for name in METRICS if any(name in run for runs in found.values() for run in runs)]
    of_models = {
        model: {name: [run[name] for run in runs if name in run] for name in shown} for model, runs in found.items()
    }
    return spread_table(of_models, head="model", digits=2)


if __name__ == "__main__":
    main()
