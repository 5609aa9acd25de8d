"""What pre-training on fractals is worth: python -m tests.benchmarks.fractal_shows FOLDER [--seeds N].

FOLDER is where `reelwright init --recipe fractal FOLDER` goes, which is done if it is not there, with more videos of
actions (split `more`), so that the same can be asked of more labels. Everything is the recipe's but what an arm says:
an encoder is pre-trained with an objective (with scene augmentations, or without), and then

tuned       fine-tuned on few videos of actions, as the recipe does, from nothing (scratch) too
probed      stays as it is: a linear layer learns from its stored rows of the same videos
more        tuned on all videos of actions, 22 of each verb and noun, for half the epochs (--more)

Accuracy of the test videos in %, of verbs and of nouns. Seeds are those of pre-training and of fine-tuning; with
--pretrainings below --seeds some share a pre-training. Videos and test split are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reelwright.cli.progress import Watcher
from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import build_pipeline
from reelwright.pipeline.config.recipes import read_recipe
from reelwright.pipeline.config.sample_data import make_fractal
from reelwright.pipeline.project import Project
from reelwright.pipeline.run.runner import RunResult
from tests.benchmarks.spread import spread_table

SCRATCH = "scratch"
NUM_MORE = 18  # videos of each verb and noun beside the recipe's
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ce": {"name": "ce"},
    "simclr": {"name": "simclr", "temperature": 0.1},
    "moco": {"name": "moco", "queue": 512, "momentum": 0.99},  # small: there are few videos and few updates
    "byol": {"name": "byol", "momentum": 0.99},
}
SCENE = "-scene"  # with scene augmentations
ARMS = (SCRATCH, *OBJECTIVES, *(f"{name}{SCENE}" for name in OBJECTIVES))
HEADS = ("verb", "noun")
Found = dict[str, dict[str, list[float]]]  # arm -> tuned verb, tuned noun, ... -> a figure a seed


def main() -> None:
    """Train and measure what is not there yet; print mean and spread over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fractal_shows", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrainings", type=int, help="seeds of pre-training; all of --seeds")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--more", action="store_true", help="also fine-tune on all videos of actions")
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument("--set", action="append", default=[], help="a setting otherwise: stages.tune.epochs=5")
    arguments = parser.parse_args()
    path = make_data(arguments.folder)
    seeds = range(arguments.seeds)
    content = OmegaConf.to_container(
        OmegaConf.merge(read_yaml(path), OmegaConf.from_dotlist(arguments.set)), resolve=True
    )
    assert isinstance(content, dict)
    content["stages"] = stages_of(
        content["stages"],
        arguments.arms,
        seeds,
        num_pretrainings=arguments.pretrainings or arguments.seeds,
        more=arguments.more,
    )
    project = Project(build_pipeline(content, path=path.with_name("fractal_shows.yaml")))
    with Watcher() as watcher:
        finished(project.run(observer=watcher, jobs=1))
    found = figures(project, arguments.arms, seeds, more=arguments.more)
    print(spread_table(found, head="arm"))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def finished(result: RunResult) -> None:
    """Leave where a node failed."""
    if result.exit_code:
        sys.exit("\n".join(f"{node.node}: {node.message}" for node in result.nodes if node.state == "failed"))


def make_data(folder: Path) -> Path:
    """The recipe's pipeline file and its videos, with more actions; what is there is kept."""
    path = folder.absolute() / "reelwright.yaml"
    make_fractal(path.parent, workers=os.cpu_count() or 1, num_more=NUM_MORE)
    path.write_text(read_recipe("fractal"), encoding="utf-8")
    return path


def stages_of(
    stages: Mapping[str, Any], arms: Sequence[str], seeds: Sequence[int], *, num_pretrainings: int, more: bool = False
) -> dict[str, Any]:
    """The nodes of every arm and seed, made of those of the recipe."""
    made: dict[str, Any] = {name: stages[name] for name in ("frames", "tsm")}
    for arm in arms:
        for seed in seeds:
            start = None
            if arm != SCRATCH:
                start = f"{arm}_{seed % num_pretrainings}"
                made[start] = pretraining(stages["pretrain"], arm, seed % num_pretrainings)
                made[f"{start}_rows"] = {"uses": "embed", "frames": "frames", "run": start, "clip": {"hop": 16}}
            tuned = {**stages["tune"], "init_from": start, "seed": seed}
            made |= scored(stages, f"{arm}_tuned_{seed}", tuned)
            made |= scored(stages, f"{arm}_probed_{seed}", probe(f"{start}_rows" if start else "tsm", seed), rows=True)
            if more:
                many = {**tuned, "train_splits": ["train", "more"], "epochs": max(1, tuned["epochs"] // 2)}
                made |= scored(stages, f"{arm}_more_{seed}", many)
    return made


def pretraining(node: Mapping[str, Any], arm: str, seed: int) -> dict[str, Any]:
    """As the recipe's; comparing two clips of a video has as many clips as learning its class, in half the epochs."""
    objective, clips = OBJECTIVES[arm.removesuffix(SCENE)], dict(node["clips"])
    if arm.endswith(SCENE):
        clips["augment"] = {**clips["augment"], "scene": {}}
    made = {**node, "objective": objective, "clips": clips, "seed": seed}
    if objective["name"] != "ce":
        made["epochs"] = node["epochs"] // 2
        made.pop("labels")
    return made


def probe(rows: str, seed: int) -> dict[str, Any]:
    """A linear layer on the stored rows of a frozen encoder."""
    return {
        "uses": "train",
        "embeddings": [rows],
        "task": "heads",
        "window": {"length": 1, "sampling": "segments"},  # one clip a video
        "model": {"name": "linear", "norm": True},
        "val_splits": [],
        "epochs": 100,
        "batch_size": 32,
        "optimizer": {"name": "adamw", "lr": 1e-2},
        "seed": seed,
    }


def scored(stages: Mapping[str, Any], name: str, node: dict[str, Any], *, rows: bool = False) -> dict[str, Any]:
    """The node, its predictions of the test videos, and their scores."""
    predict = {**stages["predict"], "run": name}
    if rows:
        predict.pop("frames")
    return {
        name: node,
        f"{name}_predict": predict,
        f"{name}_scores": {"uses": "evaluate", "predictions": f"{name}_predict", "report": False},
    }


def figures(project: Project, arms: Sequence[str], seeds: Sequence[int], *, more: bool) -> Found:
    """Of each arm the accuracies of all seeds."""
    found: Found = {}
    for arm in arms:
        found[arm] = {}
        for kind in ("tuned", "probed", *(("more",) if more else ())):
            for head in HEADS:
                found[arm][f"{kind} {head}"] = [
                    accuracy(project, f"{arm}_{kind}_{seed}_scores", head) for seed in seeds
                ]
    return found


def accuracy(project: Project, node: str, head: str) -> float:
    """Of the test videos, in %."""
    scores = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))
    return 100 * float(scores["headline"][f"{head}_top1"])


if __name__ == "__main__":
    main()
