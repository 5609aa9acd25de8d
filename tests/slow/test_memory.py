"""Memory of decode and embed stays bounded: on 20 minutes of 720p video under 2 GB, and no more than on 2 minutes.

Both by PyAV: left to itself decode takes decord for the shorter one, whose memory grows up to a bound of its own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

MINUTES = {"short": 2, "long": 20}
FPS, HEIGHT, WIDTH, GROUP_FRAMES = 5, 720, 1280, 20  # 6,000 frames in 20 minutes are 16 GB: enough to see memory grow
LIMIT_BYTES = 2e9
MAY_GROW = 1.15  # sampled peaks of equal work differ by some percent
PIPELINE = """
videos: {{folder: {folder}}}
stages:
  frames: {{uses: decode, fps: 1, materialize: {materialize}, backend: pyav}}
  embed:
    {{uses: embed, frames: frames, encoder: timm/resnet18, weights: none, precision: fp32, runtime: eager,
     preprocess: {{size: [96, 96]}}}}
"""  # one runtime: `auto` may build another one, with memory of its own, for the longer job alone


# Between fork and exec a child is as large as its parent, to the kernel too. This one is small, pytest is not.
LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""
AFTER_FORK_SECONDS = 0.3
LOOK_SECONDS = 0.25  # looking takes as long as half a sample, for it reads all processes of the machine


@dataclass(frozen=True)
class Peak:
    """The most memory that was held at any time."""

    tree_bytes: int  # resident, all processes of the command together (shared libraries counted in each), sampled
    largest_bytes: int  # resident, of the largest single process, by the kernel's own account
    rows: int


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with one video for each length."""
    root = tmp_path_factory.mktemp("videos")
    group = root / "group.mp4"
    write_group(group)
    folders = {}
    for name, minutes in MINUTES.items():
        folders[name] = root / name
        folders[name].mkdir()
        repeat_group(group, folders[name] / f"{name}.mp4", times=minutes * 60 * FPS // GROUP_FRAMES)
    return folders


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("stage", "materialize"), [("frames", "true"), ("embed", "false")], ids=["decode", "embed"])
def test_peak_memory_does_not_grow_with_the_length(
    stage: str, materialize: str, videos: dict[str, Path], tmp_path: Path
) -> None:
    peaks = {}
    for name, folder in videos.items():
        project = tmp_path / name
        project.mkdir()
        (project / "reelwright.yaml").write_text(PIPELINE.format(folder=folder, materialize=materialize))
        peaks[name] = run_and_watch(project, stage)
        assert peaks[name].rows == MINUTES[name] * 60
    print(
        {
            name: f"{peak.tree_bytes / 1e6:.0f} MB, largest {peak.largest_bytes / 1e6:.0f} MB"
            for name, peak in peaks.items()
        }
    )
    for measure in ("tree_bytes", "largest_bytes"):
        short, long = getattr(peaks["short"], measure), getattr(peaks["long"], measure)
        assert long < LIMIT_BYTES, f"{measure}: {long / 1e6:.0f} MB on {MINUTES['long']} minutes"
        assert long <= MAY_GROW * short, f"{measure}: {long / 1e6:.0f} MB, {short / 1e6:.0f} MB on the short video"


def run_and_watch(project: Path, node: str) -> Peak:
    """``reelwright run --until node`` in ``project``: its peak memory and the rows that the node has then."""
    command = [sys.executable, "-c", "from reelwright.cli.main import main; main()", "run", "--until", node]
    account = project / "account.txt"
    with (project / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(account), *command], cwd=project, stdout=log, stderr=log
        )
        time.sleep(AFTER_FORK_SECONDS)
        watcher = Watcher(process.pid)
        watcher.start()
        process.wait()
        watcher.stop()
    assert process.returncode == 0, (project / "log.txt").read_text()
    return Peak(
        tree_bytes=watcher.peak_bytes,
        largest_bytes=max(int(account.read_text()) * 1024, watcher.largest_bytes),
        rows=num_rows(project, node),
    )


class Watcher(threading.Thread):
    """Samples the resident memory of a process and all below it, every 20 ms; new ones within a quarter of a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self.peak_bytes = 0
        self.largest_bytes = 0

    def run(self) -> None:
        tree, looked = [self._root], 0.0
        while not self._done.is_set():
            if time.monotonic() - looked > LOOK_SECONDS:
                tree, looked = self._tree(), time.monotonic()
            sizes = [resident_bytes(process) for process in tree]
            self.peak_bytes = max(self.peak_bytes, sum(sizes))
            self.largest_bytes = max(self.largest_bytes, *sizes)
            time.sleep(0.02)

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return [self._root]


def resident_bytes(process: psutil.Process) -> int:
    """0 of a process that is gone."""
    try:
        return process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return 0


def num_rows(project: Path, node: str) -> int:
    """Rows that the node's only video has in the store."""
    from reelwright.pipeline.project import Project

    opened = Project.open(project / "reelwright.yaml")
    rows = opened.frames(node) if node == "frames" else opened.embeddings(node)
    (found,) = rows.values()
    return found.num_rows


def write_group(path: Path) -> None:
    """One closed group of pictures: a bright box moves over a textured ground."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 180, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8).repeat(40, axis=0).repeat(40, axis=1)
    options = {"preset": "ultrafast", "threads": "2", "g": str(GROUP_FRAMES), "bf": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(GROUP_FRAMES):
            image = ground.copy()
            image[100:300, 30 * number : 30 * number + 200] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def repeat_group(group: Path, path: Path, *, times: int) -> None:
    """The same packets over and over, with later and later times."""
    with av.open(str(group)) as source:
        template = source.streams.video[0]
        packets = [packet for packet in source.demux(template) if packet.size]
        contents = [(bytes(packet), packet.pts, packet.is_keyframe) for packet in packets]
        ticks = round(1 / (FPS * template.time_base))
        with av.open(str(path), "w") as target:
            stream = target.add_stream_from_template(template)
            for number in range(times):
                for content, pts, is_key in contents:
                    packet = av.Packet(content)
                    packet.pts = packet.dts = pts + number * GROUP_FRAMES * ticks
                    packet.duration, packet.time_base = ticks, template.time_base
                    packet.is_keyframe = is_key
                    packet.stream = stream
                    target.mux(packet)
