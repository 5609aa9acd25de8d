"""The videos that are measured on: six of 640x480, H.264, 960 frames in all, the same on every machine.

Moving shapes over a textured ground with noise, so that a decoder has something to do. They are made once and kept in
the machine's temporary folder.
"""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

RECIPE = 1  # raise it when the videos change, so that old ones are not taken
NUM_VIDEOS, NUM_FRAMES, FPS, HEIGHT, WIDTH = 6, 160, 25, 480, 640
NUM_SHAPES = 8
NOISE = 6.0  # standard deviation, of 255


def bench_videos() -> list[Path]:
    """The six files, made when they are not there yet (about 15 s)."""
    folder = Path(tempfile.gettempdir()) / f"reelwright-bench-{getpass.getuser()}-{RECIPE}"
    folder.mkdir(mode=0o700, exist_ok=True)
    paths = [folder / f"video{number}.mp4" for number in range(NUM_VIDEOS)]
    for number, path in enumerate(paths):
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}.tmp")
            _write(unfinished, seed=number)
            unfinished.replace(path)
    return paths


def long_video(path: Path, *, num_videos: int) -> Path:
    """The first of them one after the other in one file at ``path``, their packets as they are."""
    with av.open(str(path), "w", format="mp4") as container:
        stream, offset = None, 0
        for part in bench_videos()[:num_videos]:
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                stream = stream or container.add_stream_from_template(video)
                for packet in source.demux(video):
                    if packet.dts is not None:  # the last one is empty
                        packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                        container.mux(packet)
                offset += video.duration
    return path


def _write(path: Path, *, seed: int) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"threads": "1", "preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for image in _images(seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _images(seed: int) -> list[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (HEIGHT // 40, WIDTH // 40, 3))
    ground = coarse.repeat(40, axis=0).repeat(40, axis=1).astype(np.float32)
    noise = rng.normal(0, NOISE, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
    places = rng.uniform(0, 1, (NUM_SHAPES, 2))
    speeds = rng.uniform(-0.01, 0.01, (NUM_SHAPES, 2))
    sizes, colours = rng.integers(30, 120, (NUM_SHAPES, 2)), rng.integers(0, 256, (NUM_SHAPES, 3))
    images = []
    for frame in range(NUM_FRAMES):
        image = ground + noise[rng.integers(len(noise))]
        for place, speed, size, colour in zip(places, speeds, sizes, colours, strict=True):
            y, x = ((place + frame * speed) % 1 * (HEIGHT, WIDTH)).astype(int)
            image[y : y + size[0], x : x + size[1]] = colour
        images.append(image.clip(0, 255).astype(np.uint8))
    return images
