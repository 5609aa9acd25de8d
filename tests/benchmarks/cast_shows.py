"""What CAST shows on actions: python -m tests.benchmarks.cast_shows FOLDER [--seeds N].

FOLDER is what `reelwright init --recipe cast FOLDER` wrote; its videos, experts and tokens are those of its store. Per
seed the arms below are trained on the same stored tokens, and none of these is computed anew. Of the test videos the
shares with the right verb, noun, and both, in %.

space, time     a linear layer for verbs and one for nouns on what one expert alone makes of a clip
ensemble        the mean of the scores of these two
late add        the same two layers on the sum of both experts' vectors
late concat     on both side by side
adapters        CAST's adapters in all blocks, without exchange
CAST top 2      adapters and exchange in the last two of four blocks
CAST            in all blocks

Then peak memory of one epoch of CAST from tokens and from frames, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from reelwright.models.blocks.heads import Head
from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import build_pipeline
from reelwright.pipeline.project import Project
from reelwright.stages.datasets.tasks.sets import head_metrics
from tests.benchmarks.spread import spread_table

EPOCHS = {"epochs": 30, "evaluate_every": 10}  # of what has but a linear layer; an epoch is less than a second
POOLED = {**EPOCHS, "output": "pooled", "model": {"name": "linear"}}
LATE = {"name": "cast", "top": 0, "exchange": "none"}
ARMS: dict[str, dict[str, Any]] = {  # what is not as in the recipe's node `cast`
    "space": {"embeddings": ["space"], **POOLED},
    "time": {"embeddings": ["time"], **POOLED},
    "late add": {**EPOCHS, "output": "block4.input", "model": {**LATE, "fusion": "add"}},
    "late concat": {**EPOCHS, "output": "block4.input", "model": {**LATE, "fusion": "concat"}},
    "adapters": {"output": "block0.input", "model": {"name": "cast", "top": 4, "exchange": "none"}},
    "CAST top 2": {},
    "CAST": {"output": "block0.input", "model": {"name": "cast", "top": 4}},
}
FRAMES = {"window": {"length": 8}, "preprocess": {"interpolation": "bicubic", "antialias": True}}  # of finetune
ENSEMBLE, EXPERTS = "ensemble", ("space", "time")
METRICS = ("verb_top1", "noun_top1", "action_top1")
COMMON = ("frames", "nouns", "verbs", "space", "time")
Found = dict[str, list[dict[str, float]]]


def main() -> None:
    """Train, predict and score what is not there yet; print mean and spread over the seeds, then memory."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cast_shows", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument("--set", action="append", default=[], help="a setting otherwise: stages.cast.epochs=5")
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS], help="only these")
    parser.add_argument("--memory", choices=("tokens", "frames"), help="only the peak memory of one of the two")
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak_memory(arguments.folder, arguments.memory, changes=arguments.set))
        return
    found = measure(arguments.folder, range(arguments.seeds), changes=arguments.set, arms=arguments.arms)
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    for source in ("tokens", "frames"):
        changes = [part for change in arguments.set for part in ("--set", change)]
        command = [sys.executable, "-m", "tests.benchmarks.cast_shows", str(arguments.folder), "--memory", source]
        # A shell in between: a process begins with the peak memory of the one that it was forked from.
        shell = f"{shlex.join([*command, *changes])}; exit $?"
        done = subprocess.run(["sh", "-c", shell], check=True, stdout=subprocess.PIPE, text=True)
        print(f"peak memory of an epoch from {source}: {int(done.stdout.split()[-1]) / (1 << 20):,.0f} MiB")


def measure(folder: Path, seeds: range, *, changes: Sequence[str] = (), arms: Sequence[str] = tuple(ARMS)) -> Found:
    """Of each arm the figures of every seed, in %."""
    stages = read_stages(folder, changes)
    project = opened(folder, changes, stages_of(stages, seeds, arms=arms))
    run(project)
    found: Found = {arm: [_figures(project, name_of(arm, seed)) for seed in seeds] for arm in arms}
    if set(EXPERTS) <= set(arms):
        found[ENSEMBLE] = [ensemble(project, seed) for seed in seeds]
    return found


def read_stages(folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """The nodes of the recipe, with changes."""
    content = OmegaConf.merge(read_yaml((folder / "reelwright.yaml").absolute()), OmegaConf.from_dotlist([*changes]))
    stages: dict[str, Any] = OmegaConf.to_container(content.stages, resolve=True)  # type: ignore[assignment]
    return stages


def opened(folder: Path, changes: Sequence[str], stages: Mapping[str, Any]) -> Project:
    """The recipe's project with other nodes."""
    path = (folder / "reelwright.yaml").absolute()
    merged = OmegaConf.merge(read_yaml(path), OmegaConf.from_dotlist([*changes]))
    content: Any = {**OmegaConf.to_container(merged, resolve=True), "stages": dict(stages)}  # type: ignore[dict-item]
    return Project(build_pipeline(content, path=path.with_name("cast_shows.yaml")))


def run(project: Project) -> None:
    """All of it; ends the program where something fails, or another process is at it."""
    result = project.run()
    if result.exit_code:
        unfinished = [node for node in result.nodes if node.state not in {"ran", "up to date"}]
        sys.exit("\n".join(f"{node.node} {node.state}: {node.message}" for node in unfinished))


def stages_of(stages: Mapping[str, Any], seeds: range, *, arms: Sequence[str] = tuple(ARMS)) -> dict[str, Any]:
    """The nodes up to the tokens, and those of each arm and seed."""
    made: dict[str, Any] = {name: stages[name] for name in COMMON if name in stages}
    for arm in arms:
        for seed in seeds:
            name = name_of(arm, seed)
            made[name] = {**stages["cast"], **ARMS[arm], "seed": seed}
            made[f"{name}_predict"] = {**stages["predict"], "run": name}
            made[f"{name}_scores"] = {**stages["scores"], "predictions": f"{name}_predict", "report": False}
    return made


def name_of(arm: str, seed: int) -> str:
    """Of the node of a run."""
    return f"{arm.replace(' ', '_').lower()}_alone_{seed}" if arm in EXPERTS else f"{arm.replace(' ', '_')}_{seed}"


def _figures(project: Project, name: str) -> dict[str, float]:
    scores = json.loads((project.report(f"{name}_scores") / "metrics.json").read_text(encoding="utf-8"))
    videos = scores["splits"]["test"]["videos"]
    return {metric: 100 * videos[metric] for metric in METRICS}


def ensemble(project: Project, seed: int) -> dict[str, float]:
    """The mean of the scores of both experts alone, measured as `evaluate` measures."""
    first, second = (project.predictions(f"{name_of(expert, seed)}_predict") for expert in EXPERTS)
    tables = [each.videos().to_pandas().set_index("video_id").scores for each in (first, second)]
    names = sorted(tables[0].index)
    scores_NK = np.mean([np.stack(list(scores.loc[names])) for scores in tables], axis=0)
    labels = project.planner().dataset.labels
    heads = [Head(name=name, num_classes=size) for name, size in labels.heads]
    firsts = np.cumsum([0, *(head.num_classes for head in heads)])[:-1]  # ids count through all heads
    target_NH = np.array([labels.of(name).labels for name in names]) - firsts
    found = head_metrics(scores_NK.astype(np.float32), target_NH, heads, topk=(1,))
    return {metric: 100 * found[metric] for metric in METRICS}


def peak_memory(folder: Path, source: str, *, changes: Sequence[str] = ()) -> int:
    """Bytes of this process after one epoch of CAST in all blocks."""
    stages = read_stages(folder, changes)
    made = {name: stages[name] for name in COMMON if name in stages}
    if source == "tokens":
        made["memory"] = {**stages["cast"], **ARMS["CAST"], "epochs": 1, "seed": 101}
    else:
        kept = {name: value for name, value in stages["cast"].items() if name not in {"embeddings", "output"}}
        own = {"uses": "finetune", "frames": "frames", "experts": ["space", "time"], "model": {"name": "cast"}}
        made["memory"] = {**kept, **own, **FRAMES, "epochs": 1, "seed": 101}
    project = opened(folder, changes, made)
    run(project)
    return int(project.trained("memory").metrics()[-1]["peak_memory_bytes"])


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Mean and standard deviation over the seeds."""
    return spread_table(
        {arm: {name: [run[name] for run in runs] for name in METRICS} for arm, runs in found.items()}, head="arm"
    )


if __name__ == "__main__":
    main()
