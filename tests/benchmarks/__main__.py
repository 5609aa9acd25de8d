"""Run the benchmarks: python -m tests.benchmarks [NAME ...] [--repeats N] [--json FILE] [--quick]."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from tests.benchmarks.harness import LEGEND, Options, heading, machine, table
from tests.benchmarks.videos import NUM_VIDEOS

BENCHMARKS = {  # name: (module, title)
    "startup": ("bench_startup", "Start-up: seconds on the clock of a command, and of a run with nothing to do"),
    "crossed": ("bench_crossed", "Crossed: files and functions of ours that a command goes through"),
    "scale": ("bench_scale", "Scale: nothing to do, and one video more, against DVC and Snakemake"),
    "grow": ("bench_grow", "Grow: seconds and peak memory of commands, by the number of items"),
    "decode": ("bench_decode", "Decode: frames/s through our stream and into the store, against the bare loop"),
    "embed": ("bench_embed", "Embed: frames/s of the whole stage, against its bound and the simple loop"),
    "train": ("bench_train", "Train: windows/s of our loop, against the plain loop on tensors in memory"),
    "views": ("bench_views", "Train on views: steps/s of our loop, against the plain loop on tensors in memory"),
    "finetune": ("bench_finetune", "Finetune: steps/s of the stage, against bare reading and bare steps"),
    "pretrain": ("bench_pretrain", "Pre-training on clips: clips/s of the stage, against bare reading and bare steps"),
    "scene": ("bench_scene", "Scene augmentations: clips/s of each, and its cost beside a training step"),
    "cast": ("bench_cast", "CAST: updates/s of the last blocks on stored tokens, against the same network on frames"),
    "predict": ("bench_predict", "Predict over frames: windows/s, against the encoder on every window"),
    "psr": ("bench_psr", "Predict steps on video: ViT-S, windows of 65 frames at every frame"),
    "codecs": ("bench_embedding_codecs", "Embedding codecs: size and speed on real rows"),
    "cluster": ("bench_cluster", "Executors: what an item costs, how embed scales, and the driver of a million videos"),
    "synthesize": ("bench_synthesize", "Synthesize: videos/s, against the compiled generator and on all cores"),
}


def main() -> None:
    """Print a table for every benchmark asked for; all without a name."""
    arguments = _arguments()
    names = arguments.name or list(BENCHMARKS)
    print("\n".join([*heading(), LEGEND]), flush=True)
    results = {}
    with tempfile.TemporaryDirectory(prefix="reelwright-bench-") as folder:
        options = Options(
            repeats=1 if arguments.quick else arguments.repeats,
            quick=arguments.quick,
            num_videos=1 if arguments.quick else arguments.videos,
            folder=Path(folder),
            peers=arguments.peers,
            counts=tuple(arguments.counts),
            out=arguments.out,
        )
        for name in names:
            module, title = BENCHMARKS[name]
            started, load = time.perf_counter(), os.getloadavg()[0]
            rows = import_module(f"tests.benchmarks.{module}").run(options)
            seconds = time.perf_counter() - started
            found = f"\n{name} ({options.repeats} rounds, {seconds:.0f} s, load {load:.1f} to {os.getloadavg()[0]:.1f})"
            print("\n".join([found, *table(title, rows)]), flush=True)
            results[name] = {
                "load_average": [load, os.getloadavg()[0]],
                "seconds": round(seconds, 1),
                "rows": [row.plain() for row in rows],
            }
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine(), "benchmarks": results}, indent=2), encoding="utf-8")
        print(f"\nwritten: {arguments.json}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*BENCHMARKS, []], help=f"of {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; every case runs once in each")
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS, help="bench videos that are used, at most 6")
    parser.add_argument("--peers", type=Path, help="folder where DVC and Snakemake are, or are installed to stay")
    parser.add_argument("--counts", type=int, nargs="+", default=[], help="numbers of items (grow)")
    parser.add_argument("--out", type=Path, help="folder for pictures (grow)")
    parser.add_argument("--json", type=Path, help="write all figures there too")
    parser.add_argument("--quick", action="store_true", help="one round on little input: only to see that it runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
