"""What the recipe `psr` shows on held-out recordings: python -m tests.benchmarks.psr_shows FOLDER [--seeds N].

FOLDER is what `reelwright init --recipe psr FOLDER` wrote; pre-training and embeddings are those of its store. Per seed
three temporal streams are trained on the same embeddings, decoded and scored on the test split: windows drawn around
changes (key clips), windows drawn uniformly, and the state that each single frame shows; in "both" the first and the
last of these vote. They are scored with one and the same threshold, and with the one of THRESHOLDS that is best on val,
for each run its own. Beside means and standard deviations stand the differences of two streams, seed by seed, with the
standard error of their mean. The recordings may be those of any preset of `synthesize procedure` (docs/stand-ins.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import build_pipeline
from reelwright.pipeline.project import Project
from tests.benchmarks.spread import spread_table

THRESHOLDS = (1.5, 3, 6, 9, 12)  # the recipe's own is among them
SPLITS = ("val", "test")
STREAMS = {"key clips": "train", "uniform": "train", "single frames": "frame_train"}  # and the node it is made of
BOTH = "both"  # of the streams VOTING
VOTING = ("key clips", "single frames")
PAIRS = (("key clips", "uniform"), ("key clips", "single frames"), (BOTH, "key clips"), (BOTH, "single frames"))
METRICS = {
    "pos": "POS %",
    "f1": "F1 %",
    "delay_seconds": "delay s",
    "false_negatives": "missed",
    "false_positives": "wrong",
}


def main() -> None:
    """Train, decode and score what is not there yet; print mean and spread over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.psr_shows", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument(
        "--set", action="append", default=[], help="a setting of a node otherwise: train.window.length=12"
    )
    parser.add_argument("--streams", nargs="+", default=[*STREAMS, BOTH], choices=[*STREAMS, BOTH], help="only these")
    arguments = parser.parse_args()
    found = measure(arguments.folder, range(arguments.seeds), changes=arguments.set, streams=arguments.streams)
    for title, streams in found.items():
        print("\n".join([title, table(streams), *differences(streams), ""]))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


def measure(
    folder: Path, seeds: range, *, changes: Sequence[str] = (), streams: Sequence[str] = (*STREAMS, BOTH)
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """With either threshold, of every stream the scores of every seed."""
    path = (folder / "reelwright.yaml").absolute()
    changed = OmegaConf.merge(read_yaml(path), OmegaConf.from_dotlist([f"stages.{change}" for change in changes]))
    content = OmegaConf.to_container(changed, resolve=True)
    assert isinstance(content, dict)
    given = content["stages"]["steps"]["threshold"]
    content["stages"] = stages_of(content["stages"], seeds, streams=streams)
    project = Project(build_pipeline(content, path=path.with_name("psr_shows.yaml")))
    result = project.run()
    if result.exit_code:
        sys.exit("\n".join(f"{node.node}: {node.message}" for node in result.nodes if node.state == "failed"))
    same = {stream: [_scores(project, stream, seed, given, "test") for seed in seeds] for stream in streams}
    best = {stream: [_best(project, stream, seed) for seed in seeds] for stream in streams}
    return {f"threshold {given}": same, "threshold chosen on val": best}


def stages_of(stages: dict[str, Any], seeds: range, *, streams: Sequence[str] = (*STREAMS, BOTH)) -> dict[str, Any]:
    """The nodes up to the embeddings, and those of every stream and seed."""
    made = {name: stages[name] for name in ("frames", "pretrain", "embed")}
    trained = [stream for stream in STREAMS if stream in streams or (BOTH in streams and stream in VOTING)]
    for stream in trained:
        for seed in seeds:
            name, source = f"{_name(stream)}_{seed}", STREAMS[stream]
            made[name] = {**stages[source], "seed": seed}
            if stream == "uniform":
                window = {key: value for key, value in stages[source]["window"].items() if key != "events"}
                made[name]["window"] = {**window, "sampling": "per_video"}
            made[f"{name}_predict"] = {"uses": "predict", "run": name, "splits": list(SPLITS)}
    for stream in streams:
        for seed in seeds:
            name = f"{_name(stream)}_{seed}"
            predictions = [f"{_name(one)}_{seed}_predict" for one in (VOTING if stream == BOTH else (stream,))]
            for threshold in THRESHOLDS:
                steps = f"{name}_steps_{threshold:g}".replace(".", "_")
                made[steps] = {**stages["steps"], "predictions": predictions, "threshold": threshold}
                for split in SPLITS:
                    scores = {"uses": "evaluate", "predictions": steps, "report": False, "splits": [split]}
                    made[f"{steps}_{split}"] = scores
    return made


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds."""
    shares = {"pos", "f1"}
    of_streams = {
        stream: {title: [run[name] * (100 if name in shares else 1) for run in runs] for name, title in METRICS.items()}
        for stream, runs in found.items()
    }
    return spread_table(of_streams, head="stream")


def differences(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Of PAIRS, in POS and F1: mean, standard deviation and standard error over the seeds, and each."""
    lines = []
    known = [pair for pair in PAIRS if set(pair) <= found.keys()]
    for (first, second), name in ((pair, name) for pair in known for name in ("pos", "f1")):
        pairs = zip(found[first], found[second], strict=True)
        values = [100 * (one[name] - other[name]) for one, other in pairs]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        error = spread / len(values) ** 0.5
        each = " ".join(f"{value:+.1f}" for value in values)
        lines.append(
            f"{first} - {second}, {METRICS[name]}: {statistics.mean(values):+.1f} +- {spread:.1f}, "
            f"standard error {error:.1f}; seed by seed {each}"
        )
    return lines


def _name(stream: str) -> str:
    return stream.replace(" ", "_")


def _scores(project: Project, stream: str, seed: int, threshold: float, split: str) -> dict[str, float]:
    node = f"{_name(stream)}_{seed}_steps_{threshold:g}".replace(".", "_") + f"_{split}"
    headline = json.loads((project.report(node) / "metrics.json").read_text(encoding="utf-8"))["headline"]
    return {name: float(headline.get(f"step_{name}", "nan")) for name in METRICS}


def _best(project: Project, stream: str, seed: int) -> dict[str, float]:
    """Scores on test with the threshold that is best on val, by F1, then POS."""
    on_val = {threshold: _scores(project, stream, seed, threshold, "val") for threshold in THRESHOLDS}
    chosen = max(THRESHOLDS, key=lambda threshold: (on_val[threshold]["f1"], on_val[threshold]["pos"]))
    return {**_scores(project, stream, seed, chosen, "test"), "threshold": chosen}


if __name__ == "__main__":
    main()
