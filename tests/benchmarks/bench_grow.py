"""Grow: seconds and peak memory of run, status, gc, verify and of embedding one video more, by the number of items.

One real video of a few frames is embedded; its item stands for all others, with links to its files, an entry in the
ledger each, and a video file of its own content. So `verify` reads every byte of every item, and `gc` lists all files.
With `--out FOLDER` the figures are drawn (grow.svg). DVC and Snakemake, where `--peers` says they are, run with nothing
to do over as many files.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from reelwright.pipeline.project import Project
from reelwright.storage.digests import file_digest
from reelwright.storage.files import write_table
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, stamp
from reelwright.storage.ledger.items import ItemLedger, items_table
from tests.benchmarks.bench_scale import (
    LIMIT_SECONDS,
    PIPELINE,
    PREPARE_SECONDS,
    TOOLS,
    peer_seconds,
    video,
    write_manifest,
    write_stand_ins,
    write_videos,
)
from tests.benchmarks.bench_startup import COMMAND, environment
from tests.benchmarks.harness import Figures, Options, Row
from tests.benchmarks.peers import install

LINKS = 50_000  # to a file, at most: ext4 allows 65,000
COUNTS = (1_000, 10_000, 100_000)
VERBS = {"run": ["run"], "status": ["status"], "gc": ["gc"], "verify": ["verify"]}
NOTE_PEAK = """
import atexit, pathlib
atexit.register(lambda: pathlib.Path("peak.txt").write_text(pathlib.Path("/proc/self/status").read_text()))
"""
ONE_MORE = "embed one more"
_Measured = dict[str, dict[int, tuple[list[float], float]]]  # what -> items -> seconds of each round, most MB


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    found: _Measured = defaultdict(dict)
    pattern = video(options.folder / "pattern.mp4")
    for count in (20,) if options.quick else options.counts or COUNTS:
        folder = options.folder / f"grow{count}"
        make_finished(folder, count, pattern)
        for name, arguments in VERBS.items():
            _measured(arguments, folder)  # warms up what is read
            rounds = [_measured(arguments, folder) for _ in range(options.repeats)]
            found[name][count] = [seconds for seconds, _ in rounds], max(peak for _, peak in rounds)
        write_videos(folder / "data", pattern, [count])
        write_manifest(folder, count + 1)
        seconds, peak = _measured(["run"], folder)
        found[ONE_MORE][count] = [seconds], peak
        _add_peers(found, options, count)
        shutil.rmtree(folder)
    if options.out is not None:
        _draw(found, options.out / "grow.svg")
    return [
        Row(what=f"{name}, {count:,} items", unit="s", figures=Figures(tuple(seconds)), note=_note(by_count, count))
        for name, by_count in found.items()
        for count, (seconds, _) in by_count.items()
    ]


def make_finished(folder: Path, count: int, pattern: bytes) -> None:
    """A project of ``count`` videos in ``folder`` whose embed node is done."""
    write_videos(folder / "data", pattern, range(count))
    (folder / "reelwright.yaml").write_text(PIPELINE, encoding="utf-8")
    write_manifest(folder, 1)
    assert Project.open(folder / "reelwright.yaml").run().exit_code == 0
    write_manifest(folder, count)
    project = Project.open(folder / "reelwright.yaml")
    store, planner = project.file.store, project.planner()
    (first,), key = planner.dataset.items, planner.plan("embed").spec_key
    known, probe = KnownFiles(store.files), planner.dataset.probes[first]
    paths = {video.path: file_digest(Path(video.path)) for video in planner.dataset.videos}
    for path, digest in paths.items():
        known.add(path, digest, stamp(path))
    known.save()
    KnownProbes(store.videos).add(dict.fromkeys(paths.values(), probe))
    source = store.embeddings(key) / first
    for place, digest in enumerate(sorted(set(paths.values()) - {first})):
        is_new = place % LINKS == LINKS - 1
        shutil.copytree(source, source.with_name(digest), copy_function=shutil.copy2 if is_new else os.link)
        source = source.with_name(digest) if is_new else source
    row = ItemLedger(store.node(key)).load()[first]
    table = items_table(asdict(replace(row, digest=digest)) for digest in paths.values())
    write_table(store.node(key) / "items.parquet", table)
    project.run()
    assert project.run().nothing_to_do


def _measured(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Seconds on the clock, and the most memory that the process had in MB, which it writes down as it ends."""
    peak = folder / "peak.txt"
    command = [sys.executable, "-c", f"{NOTE_PEAK}\n{COMMAND}", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return seconds, int(peak.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024


def _add_peers(found: _Measured, options: Options, count: int) -> None:
    programs = {} if options.peers is None else {name: install(name, options.peers) for name in TOOLS}
    for name, program in programs.items():
        if isinstance(program, str):
            continue
        folder = options.folder / f"{name}{count}"
        write_stand_ins(folder / "data", count)
        try:
            peer = TOOLS[name](program, folder, limit_seconds=PREPARE_SECONDS)
            rounds = [peer_seconds(peer, limit_seconds=LIMIT_SECONDS) for _ in range(1 + options.repeats)][1:]
        except subprocess.TimeoutExpired:
            continue  # no figure: it does not bear so many
        found[f"{name}, nothing to do"][count] = rounds, 0.0


def _note(by_count: dict[int, tuple[list[float], float]], count: int) -> str:
    seconds, peak = by_count[count]
    memory = f"{peak:,.0f} MB" if peak else "memory not measured"
    if count // 10 not in by_count:
        return memory
    return f"{memory}, {statistics.median(seconds) / statistics.median(by_count[count // 10][0]):.1f} times a tenth"


def _draw(found: _Measured, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "grow"  # the same bytes for the same figures
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for name, by_count in found.items():
        counts = list(by_count)
        line = partial(left.plot, linestyle="--") if "nothing" in name else left.plot
        line(counts, [statistics.median(by_count[count][0]) for count in counts], marker="o", label=name)
        if all(by_count[count][1] for count in counts):
            right.plot(counts, [by_count[count][1] for count in counts], marker="o", label=name)
    for axes, title in ((left, "seconds"), (right, "peak memory, MB")):
        axes.set(xscale="log", yscale="log", xlabel="items", title=title)
        axes.grid(alpha=0.3)
    left.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
