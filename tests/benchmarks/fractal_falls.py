"""Falls against daily life after pre-training on fractals: python -m tests.benchmarks.fractal_falls FOLDER [--seeds N].

FOLDER is that of `fractal_shows`, whose encoders are taken (arms ce and simclr, or --arms). REELWRIGHT_REAL_DATA names
the folder that holds gmdcsa24/: 19 videos of three people, 11 of them falls. Each person in turn is left out, the
encoder is tuned on the videos of the other two, and answers for those of the third: accuracy in %, of all 19 videos
together, and mean over both classes. Nothing is chosen on these videos: settings are the recipe's, but clips
of 8 frames are taken from anywhere in a video.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reelwright.cli.progress import Watcher
from reelwright.pipeline.config.overrides import read_yaml
from reelwright.pipeline.config.pipeline_file import build_pipeline
from reelwright.pipeline.project import Project
from tests.benchmarks.fractal_shows import ARMS, SCRATCH, finished, stages_of
from tests.benchmarks.spread import spread_table

PEOPLE = ("Subject_1", "Subject_2", "Subject_3")
NUM_CLIPS = 5  # of a video that are answered for
REPEATS, EPOCHS = 4, 15  # clips of a video an epoch


def main() -> None:
    """Train and measure what is not there yet; print mean and spread over the seeds."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fractal_falls", description=__doc__)
    parser.add_argument("folder", type=Path, help="of fractal_shows, with the same --pretrainings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretrainings", type=int, help="seeds of pre-training; all of --seeds")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[SCRATCH, "ce", "simclr"])
    arguments = parser.parse_args()
    path = arguments.folder.absolute() / "reelwright.yaml"
    stages: Any = OmegaConf.to_container(read_yaml(path).stages, resolve=True)
    seeds, num = range(arguments.seeds), arguments.pretrainings or arguments.seeds
    encoders = encoders_of(path, stages, arguments.arms, seeds, num_pretrainings=num)
    answers: dict[str, list[list[tuple[str, str]]]] = {arm: [[] for _ in seeds] for arm in arguments.arms}
    for person in PEOPLE:
        manifest = write_fold(path.parent / "falls", person)
        content = {
            "videos": {"manifest": str(manifest)},
            "labels": {"column": "kind"},
            "stages": fold_stages(stages, encoders),
        }
        file = build_pipeline(content, path=manifest.with_name("falls.yaml"))
        project = Project(file)
        with Watcher() as watcher:
            finished(project.run(observer=watcher, jobs=1))
        for arm, seed in encoders:
            videos = project.predictions(f"{arm}_{seed}_predict").videos(columns=["target", "label"])
            answers[arm][seed] += list(zip(*(videos[name].to_pylist() for name in ("target", "label")), strict=True))
    print(spread_table({arm: measures(of_seeds) for arm, of_seeds in answers.items()}, head="arm"))


def encoders_of(
    path: Path, stages: Any, arms: Sequence[str], seeds: Sequence[int], *, num_pretrainings: int
) -> dict[tuple[str, int], dict[str, Any]]:
    """Of each arm and seed what its embed node says of weights: random ones, or those of the pre-trained run."""
    content: Any = OmegaConf.to_container(read_yaml(path), resolve=True)
    content["stages"] = stages_of(stages, arms, seeds, num_pretrainings=num_pretrainings)
    project = Project(build_pipeline(content, path=path.with_name("fractal_shows.yaml")))
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for arm in arms:
        for seed in seeds:
            found[arm, seed] = {"weights": "none", "seed": seed}
            if arm != SCRATCH:
                run = project.trained(f"{arm}_{seed % num_pretrainings}")
                found[arm, seed] = {"weights": str(run.weights), "prefix": "spatial."}
    return found


def write_fold(folder: Path, person: str) -> Path:
    """A manifest in which the videos of ``person`` are the test split."""
    data = Path(os.environ["REELWRIGHT_REAL_DATA"]).absolute() / "gmdcsa24"
    rows = list(csv.DictReader((data / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"without_{person}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("video_id", "path", "split", "kind"))
        for row in rows:
            split = "test" if row["subject"] == person else "train"
            writer.writerow((row["video_id"], data / row["path"], split, row["kind"]))
    return path


def fold_stages(stages: Any, encoders: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Decode once; an encoder, its fine-tuning and its answers for each arm and seed."""
    made: dict[str, Any] = {"frames": {"uses": "decode", "fps": 5, "short_side": 72}}
    preprocess = {"size": [64, 64], "resize": 72}
    for (arm, seed), weights in encoders.items():
        name = f"{arm}_{seed}"
        made[f"{name}_encoder"] = {**stages["tsm"], **weights, "preprocess": preprocess}
        made[name] = {
            **stages["tune"],
            "spatial": f"{name}_encoder",
            "init_from": None,
            "task": "video",
            "window": {"length": 8, "dilation": 2, "sampling": "dense", "short": "repeat"},
            "augment": {"flip": 0.5, "crop_scale": [0.6, 1.0], "color_jitter": 0.2},
            "repeats": REPEATS,
            "epochs": EPOCHS,
            "seed": seed,
        }
        made[f"{name}_predict"] = {**stages["predict"], "run": name, "window": {"views": NUM_CLIPS}}
    return made


def measures(of_seeds: Sequence[Sequence[tuple[str, str]]]) -> dict[str, list[float]]:
    """Of each seed, from (true, answered) of all videos: how many are right, and the mean of this over classes; %."""
    found: dict[str, list[float]] = {"videos": [], "classes": []}
    for pairs in of_seeds:
        right = {kind: [kind == answer for true, answer in pairs if true == kind] for kind, _ in pairs}
        found["videos"].append(100 * sum(map(sum, right.values())) / len(pairs))
        found["classes"].append(100 * sum(sum(each) / len(each) for each in right.values()) / len(right))
    return found


if __name__ == "__main__":
    main()
