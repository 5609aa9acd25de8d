"""What `make bench-gpu` checks and measures of videos: decoding on the device, and embedding 1080p clips end to end.

Each section yields the fields of a `gpu.Finding`.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import torch

from reelwright.stages.decode.config import DecodeConfig
from reelwright.stages.decode.readers import open_reader
from reelwright.stages.decode.readers.proven import COLOURS_OF_GPU
from tests.benchmarks.bare import backends
from tests.benchmarks.chain import fresh_work, make_project, timed_items

FRAMES_OF_A_CLIP, SECONDS, FPS = 8, 15, 25
SERVICE = 28.57  # videos/s of 15 seconds in 1080p, 8 frames each, that a service on an H100 states
ENCODER = "vit_small_patch16_224"


def decoding(setting: Any) -> Iterator[dict[str, Any]]:
    """Frames of the device beside FFmpeg's, and frames a second of both."""
    if "torchcodec" not in backends():
        yield {
            "what": "decoding on the device",
            "value": float("nan"),
            "unit": "",
            "note": "torchcodec does not load here",
        }
        return
    path = _video(setting)
    number = 8 if setting.is_tiny else 200
    backend = "torchcodec" if setting.device.type == "cpu" else "torchcodec-cuda"
    found = {}
    for name in ("pyav", backend):
        reader = open_reader(path, DecodeConfig(), backend=name)
        started = time.perf_counter()
        found[name] = [frame.copy() for _, frame in reader.read(list(range(number)))]
        yield {"what": f"decode {name}", "value": number / (time.perf_counter() - started), "unit": "frames/s"}
        reader.close()
    pairs = zip(found["pyav"], found[backend], strict=True)
    differs = [float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean()) for one, other in pairs]
    allowed = 0.0 if setting.device.type == "cpu" else COLOURS_OF_GPU
    note = f"at most {allowed:g}; median {np.median(differs):.2f}"
    is_right = max(differs) <= allowed
    yield {
        "what": "mean difference of a frame to FFmpeg's",
        "value": max(differs),
        "unit": "of 255",
        "is_right": is_right,
        "note": note,
    }


def clips(setting: Any) -> Iterator[dict[str, Any]]:
    """Videos a second of the whole embed stage, and how busy the GPU was."""
    number = 2 if setting.is_tiny else 192
    paths = _many(setting, number)
    encoder = "test_vit" if setting.is_tiny else ENCODER
    device, rate = setting.device.type, FRAMES_OF_A_CLIP / SECONDS
    names = ["auto"] if setting.device.type == "cpu" else ["auto", "torchcodec-cuda"]
    names = [name for name in names if name == "auto" or "torchcodec" in backends()]
    fixed = f"batch_size: {2 if setting.is_tiny else 128}, channels_last: true"  # nothing is measured on the way
    lines = []
    for name in names:
        lines.append(f"  frames-{name}: {{uses: decode, materialize: false, fps: {rate}, backend: {name}}}")
        for precision in ("fp32", "bf16"):
            of = (
                f"uses: embed, frames: frames-{name}, encoder: timm/{encoder}, weights: none, device: {device}, {fixed}"
            )
            lines.append(f"  rows-{name}-{precision}: {{{of}, precision: {precision}}}")
    project = make_project(setting.folder / "clips", paths, "\n".join(lines) + "\n")
    for name in names:
        for precision in ("fp32", "bf16"):
            work = fresh_work(project, f"rows-{name}-{precision}")
            with _Busy(setting.device) as busy:
                rows, seconds = timed_items(work)
            what = f"embed {number} clips, {encoder} {precision}, decode {name}"
            note = f"{number / seconds / SERVICE:.2f} of a service's {SERVICE} on an H100; {busy.said()}"
            is_right = rows == number * (FRAMES_OF_A_CLIP if not setting.is_tiny else rows // number)
            yield {"what": what, "value": number / seconds, "unit": "videos/s", "is_right": is_right, "note": note}
            yield {"what": "frames of these", "value": rows / seconds, "unit": "frames/s"}


class _Busy:
    """How busy the GPU is, asked five times a second: of NVML where torch has it, else of nvidia-smi."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._found, self._stop = device, [], threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def said(self) -> str:
        """For people."""
        return f"GPU busy {np.mean(self._found):.0f} %" if self._found else "how busy the GPU was is not known"

    def _ask(self) -> None:
        while not self._stop.wait(0.2) and self._device.type == "cuda":
            try:
                self._found.append(float(torch.cuda.utilization(self._device)))
            except (ModuleNotFoundError, RuntimeError):  # no NVML for Python
                program = shutil.which("nvidia-smi")
                if program is None:
                    return
                asked = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
                said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20).stdout
                if not (lines := said.split()) or not lines[0].isdigit():
                    return
                self._found.append(float(lines[0]))


def _video(setting: Any) -> Path:
    """A clip of moving shapes over noise, H.264, a key frame each two seconds."""
    path = setting.folder / "clip.mp4"
    if path.exists():
        return path
    height, width = (48, 64) if setting.is_tiny else (1080, 1920)
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "crf": "23", "g": str(2 * FPS)}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(2 * FPS if setting.is_tiny else SECONDS * FPS):
            image = np.roll(coarse, 3 * number, axis=1)
            image[: height // 4, : width // 4] = number % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _many(setting: Any, number: int) -> list[Path]:
    """The clip so many times, each a file of its own content: its packets as they are, and another title."""
    source, paths = _video(setting), []
    for position in range(number):
        path = setting.folder / f"clip{position}.mp4"
        with av.open(str(source)) as whole, av.open(str(path), "w", format="mp4") as container:
            container.metadata["title"] = f"clip {position}"
            video = whole.streams.video[0]
            stream = container.add_stream_from_template(video)
            for packet in whole.demux(video):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
        paths.append(path)
    return paths
