"""What attention shows on actions: python -m tests.benchmarks.st_abn_shows FOLDER [--seeds N].

FOLDER is what `reelwright init --recipe st_abn FOLDER` wrote; its videos and maps are those of its store. Per seed two
models are trained on the same maps: the recipe's, and the same network without branch and gate, whose maps are
Grad-CAM. Of the test videos:

accuracy        of the videos, in %
energy          attention in space inside the acting object's box, over the box's share of the frame; mean over the
                frames of the action (uniform: 1)
pointing        frames of the action whose highest place lies in the box, in % (uniform: the box's share)
time AUC        probability that attention in time is higher in a frame of the action than in another one of its video

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

from reelwright.pipeline.config.pipeline_file import build_pipeline, read_yaml
from reelwright.pipeline.project import Project
from reelwright.storage.arrays.window_outputs import WindowOutputs

MODELS = {"attention branch": {}, "without it": {"branch": False}}
METRICS = ("accuracy", "energy", "pointing", "uniform pointing", "time AUC")


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
    arguments = parser.parse_args()
    found = measure(arguments.folder, range(arguments.seeds), changes=arguments.set)
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def measure(folder: Path, seeds: range, *, changes: Sequence[str] = ()) -> dict[str, list[dict[str, float]]]:
    """Of each model the figures of every seed."""
    path = (folder / "reelwright.yaml").absolute()
    content = OmegaConf.to_container(
        OmegaConf.merge(read_yaml(path), OmegaConf.from_dotlist(list(changes))), resolve=True
    )
    assert isinstance(content, dict)
    content["stages"] = stages_of(content["stages"], seeds)
    project = Project(build_pipeline(OmegaConf.create(content), path=path.with_name("st_abn_shows.yaml")))
    result = project.run()
    if result.exit_code:
        sys.exit("\n".join(f"{node.node}: {node.message}" for node in result.nodes if node.state == "failed"))
    truth = read_truth(project)
    return {model: [_figures(project, _name(model, seed), truth) for seed in seeds] for model in MODELS}


def stages_of(stages: Mapping[str, Any], seeds: range) -> dict[str, Any]:
    """The nodes up to the maps, and those of each model and seed."""
    made: dict[str, Any] = {name: stages[name] for name in ("frames", "maps")}
    for model, options in MODELS.items():
        for seed in seeds:
            name, train = _name(model, seed), dict(stages["train"])
            if options:
                train.pop("loss", None)  # of the branch
            made[name] = {**train, "seed": seed, "model": {**train["model"], **options}}
            made[f"{name}_predict"] = {**stages["predict"], "run": name}
            made[f"{name}_scores"] = {**stages["scores"], "predictions": f"{name}_predict", "report": False}
    return made


def _name(model: str, seed: int) -> str:
    return f"{model.replace(' ', '_')}_{seed}"


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


def _figures(project: Project, name: str, truth: Mapping[str, Sequence[Truth]]) -> dict[str, float]:
    kept = project.attention(f"{name}_predict")
    parts: dict[str, list[float]] = defaultdict(list)
    for video_id, outputs in kept.items():
        for key, values in of_video(outputs, truth[video_id]).items():
            parts[key] += values
    scores = json.loads((project.report(f"{name}_scores") / "metrics.json").read_text(encoding="utf-8"))
    accuracy = 100 * scores["splits"]["test"]["videos"]["top1"]
    return {"accuracy": accuracy, **{key: statistics.mean(values) for key, values in parts.items() if values}}


def of_video(outputs: WindowOutputs, truth: Sequence[Truth]) -> dict[str, list[float]]:
    """Figures of the frames of one video that its windows show, and of the video itself."""
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
            found["time AUC"].append(auc(outputs.output("attention.time")[mask], acts))
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
    lines = [f"{'model':18}" + "".join(f"{name:>18}" for name in METRICS)]
    for model, runs in found.items():
        cells = []
        for name in METRICS:
            values = [run[name] for run in runs if name in run]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.2f} +- {spread:.2f}" if values else "-")
        lines.append(f"{model:18}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
