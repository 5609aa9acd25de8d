"""Scale: a run with nothing to do, and one item more, against DVC and Snakemake on the same number of items.

Nothing to do: stand-ins of a few bytes. Ours are finished as bench_startup makes them; DVC has one stage over a folder,
Snakemake a rule with a wildcard. One more: 1,000 real videos of a few frames, embedded with the same small encoder by
all; what is added is one more of them. Every figure is that of a whole process of the tool.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np

from reelwright.pipeline.project import Project
from tests.benchmarks.bench_startup import COMMAND, environment, make_finished
from tests.benchmarks.harness import Figures, Options, Row, Turns
from tests.benchmarks.peers import PER_FOLDER, Peer, dvc, install, snakemake

COUNTS = (1_000, 10_000, 100_000)
AIMS = {1_000: 0.5, 100_000: 2.5}  # seconds, with nothing to do
TOOLS: dict[str, Callable[..., Peer]] = {"dvc": dvc, "snakemake": snakemake}
LIMIT_SECONDS = 120.0  # of one run; what takes longer is told as more than that
REPEAT_BELOW_SECONDS = 20.0  # what takes longer is measured once
PREPARE_SECONDS = 900.0
NUM_VIDEOS, NUM_ADDED = 1_000, 3
PIPELINE = """
videos: {manifest: videos.csv}
stages:
  frames: {uses: decode, materialize: false}
  embed: {uses: embed, frames: frames, encoder: timm/test_resnet, weights: none}
"""


@dataclass(frozen=True)
class Case:
    """One tool on one number of items, ready to be run."""

    tool: str
    count: int
    run: Callable[[], float]


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    programs = {name: install(name, options.peers or options.folder / "peers") for name in TOOLS}
    rows = [_missing(name, why) for name, why in programs.items() if isinstance(why, str)]
    found = {name: program for name, program in programs.items() if isinstance(program, Path)}
    counts = (50,) if options.quick else COUNTS
    for count in counts:
        rows += _nothing_to_do(options, found, count)
    return rows + _one_more(options, found, 20 if options.quick else NUM_VIDEOS)


def _nothing_to_do(options: Options, programs: dict[str, Path], count: int) -> list[Row]:
    ours = options.folder / f"scale{count}"
    make_finished(ours, count)
    cases = [Case("reelwright", count, partial(_seconds, ["run"], ours))]
    rows = []
    for name, program in programs.items():
        folder = options.folder / f"{name}{count}"
        write_stand_ins(folder / "data", count)
        try:
            peer = TOOLS[name](program, folder, limit_seconds=PREPARE_SECONDS)
        except subprocess.TimeoutExpired:
            rows.append(_late(name, count, PREPARE_SECONDS, "not even ready"))
            continue
        cases.append(Case(name, count, partial(peer_seconds, peer)))
    measured, late = _measure(options, cases)
    rows += [_late(case.tool, count, LIMIT_SECONDS, "nothing to do") for case in late]
    mine = measured.pop("reelwright")
    explained = Turns(options.repeats)
    for arguments in (["status"], ["explain", "embed"], ["explain", "embed", "v7"]):
        explained.add(f"reelwright {' '.join(arguments)}, {count:,}", partial(_seconds, arguments, ours))
    aim = f", aim under {AIMS[count]:g} s" if count in AIMS else ""
    title = f"nothing to do, {count:,}"
    return [
        Row(what=f"{title}: reelwright", unit="s", figures=mine, note=f"{_processor(mine)}{aim}"),
        *(
            Row(
                what=f"{title}: {name}",
                unit="s",
                figures=figures,
                note=f"{_times_as_long(figures, mine)}, {_processor(figures)}",
            )
            for name, figures in measured.items()
        ),
        *rows,
        *(
            Row(what=name, unit="s", figures=figures, note=_processor(figures))
            for name, figures in explained.measure().items()
        ),
    ]


def _measure(options: Options, cases: list[Case]) -> tuple[dict[str, Figures], list[Case]]:
    """Figures by tool, and the cases that went over the limit. The first run of each warms up what it reads."""
    first: dict[str, float] = {}
    late = []
    for case in cases:
        try:
            first[case.tool] = case.run()
        except subprocess.TimeoutExpired:
            late.append(case)
    turns = Turns(options.repeats)
    for case in cases:
        if first.get(case.tool, REPEAT_BELOW_SECONDS) < REPEAT_BELOW_SECONDS:
            turns.add(case.tool, case.run)
    figures = turns.measure(warm_up=False)
    for tool, seconds in first.items():
        figures.setdefault(tool, Figures((seconds,)))
    return figures, late


def _one_more(options: Options, programs: dict[str, Path], count: int) -> list[Row]:
    """Items recomputed, and seconds, when one video is added; NUM_ADDED times."""
    added = 1 if options.quick else NUM_ADDED
    pattern = video(options.folder / "pattern.mp4")
    ours = options.folder / "videos"
    write_videos(ours / "data", pattern, range(count))
    write_manifest(ours, count)
    (ours / "reelwright.yaml").write_text(PIPELINE)
    assert Project.open(ours / "reelwright.yaml").run().exit_code == 0
    peers = {}
    for name, program in programs.items():
        write_videos(options.folder / f"{name}-videos" / "data", pattern, range(count))
        peers[name] = TOOLS[name](program, options.folder / f"{name}-videos", limit_seconds=PREPARE_SECONDS)
        peers[name].computed()
    seconds: dict[str, list[tuple[float, int]]] = {name: [] for name in ("reelwright", *peers)}
    for number in range(count, count + added):
        write_videos(ours / "data", pattern, [number])
        write_manifest(ours, number + 1)
        before = _num_embedded(ours)
        seconds["reelwright"].append((_seconds(["run"], ours), _num_embedded(ours) - before))
        for name, peer in peers.items():
            write_videos(peer.folder / "data", pattern, [number])
            seconds[name].append((peer_seconds(peer, limit_seconds=PREPARE_SECONDS), peer.computed()))
    mine = Figures(tuple(value for value, _ in seconds["reelwright"]))
    return [
        Row(
            what=f"one video more than {count:,}: {name}",
            unit="s",
            figures=Figures(tuple(value for value, _ in values)),
            note=f"{', '.join(f'{num:,}' for _, num in values)} embedded"
            + (
                ""
                if name == "reelwright"
                else f"; {_times_as_long(Figures(tuple(value for value, _ in values)), mine)}"
            ),
        )
        for name, values in seconds.items()
    ]


def _times_as_long(figures: Figures, mine: Figures) -> str:
    ratios = [theirs / ours for theirs, ours in zip(figures.values, mine.values, strict=False)]
    return f"{statistics.median(ratios):.1f} times as long as reelwright"


def _processor(figures: Figures) -> str:
    """What other work on the machine changes little."""
    if not figures.cores:
        return "measured once"
    used = statistics.median(seconds * cores for seconds, cores in zip(figures.values, figures.cores, strict=True))
    return f"{used:.2f} processor seconds"


def _late(tool: str, count: int, limit: float, what: str) -> Row:
    note = f"more than {limit:.0f} s, stopped"
    return Row(what=f"{what}, {count:,}: {tool}", unit="s", figures=Figures((limit,)), note=note)


def _missing(name: str, why: str) -> Row:
    return Row(what=f"{name}: left out", unit="s", figures=Figures((float("nan"),)), note=why)


def _seconds(arguments: list[str], folder: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    return seconds


def peer_seconds(peer: Peer, *, limit_seconds: float = LIMIT_SECONDS) -> float:
    started = time.perf_counter()
    peer.run(limit_seconds=limit_seconds)
    return time.perf_counter() - started


def write_stand_ins(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // PER_FOLDER}" / f"{number}.txt"
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_text(str(number))


def video(path: Path) -> bytes:
    """The bytes of a video of four small frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(4):
            image = np.full((64, 64, 3), 60 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def write_videos(folder: Path, pattern: bytes, numbers: range | list[int]) -> None:
    """Videos that differ in a box that players skip, so that no two have the same content."""
    for number in numbers:
        path = folder / f"{number // PER_FOLDER}" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pattern + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big"))


def write_manifest(folder: Path, count: int) -> None:
    lines = [f"v{number},data/{number // PER_FOLDER}/{number}.mp4" for number in range(count)]
    (folder / "videos.csv").write_text("\n".join(["video_id,path", *lines]) + "\n")


def _num_embedded(folder: Path) -> int:
    """Folders of videos in the embedding store."""
    return sum(1 for _ in (folder / ".reelwright" / "store" / "embeddings").glob("*.zarr/*/zarr.json"))
