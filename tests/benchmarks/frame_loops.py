"""Frames to embeddings as others write it: the short loop of a user, and the loop of video_features' timm path."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from reelwright.stages.base.devices import pick_device

SIMPLE_BATCH = 32


class FrameLoop:
    """An encoder of timm with random weights and its own transform, frame by frame."""

    def __init__(self, encoder: str) -> None:
        import timm

        self.device = pick_device("auto")
        self.model: Any = timm.create_model(encoder, pretrained=False, num_classes=0).eval().to(self.device)
        config = timm.data.resolve_model_data_config(self.model)
        self.transform: Any = timm.data.create_transform(**config, is_training=False)

    @torch.no_grad()
    def simple(self, paths: Sequence[Path]) -> float:
        """Frames a second of decord's get_batch in batches of 32: written in ten minutes."""
        import decord
        from PIL import Image

        started, frames = time.perf_counter(), 0
        for path in paths:
            video = decord.VideoReader(str(path))
            for start in range(0, len(video), SIMPLE_BATCH):
                images = video.get_batch(range(start, min(start + SIMPLE_BATCH, len(video)))).asnumpy()
                batch = torch.stack([self.transform(Image.fromarray(image)) for image in images])
                frames += len(self.model(batch.to(self.device)).cpu().numpy())
        return frames / (time.perf_counter() - started)

    @torch.no_grad()
    def as_video_features(self, paths: Sequence[Path], *, batch_size: int) -> float:
        """Frames a second as video_features' extractor of frames does it (github.com/v-iashin/video_features).

        A frame is read, turned to RGB, transformed and put into a list; a full list is joined, sent through the model,
        and its features kept as lists of Python numbers. It reads with OpenCV; where that is not installed, PyAV reads.
        """
        from PIL import Image

        started, frames = time.perf_counter(), 0
        for path in paths:
            features: list[list[float]] = []
            batch: list[torch.Tensor] = []
            for rgb in _read(path):
                batch.append(self.transform(Image.fromarray(rgb)).unsqueeze(0))
                if len(batch) == batch_size:
                    features.extend(self.model(torch.cat(batch).to(self.device)).tolist())
                    batch = []
            if batch:
                features.extend(self.model(torch.cat(batch).to(self.device)).tolist())
            frames += len(features)
        return frames / (time.perf_counter() - started)


def reads_with() -> str:
    """What `FrameLoop.as_video_features` reads with here."""
    return "OpenCV" if find_spec("cv2") is not None else "PyAV"


def _read(path: Path) -> Iterator[Any]:
    """Frames (H, W, 3) RGB, one after the other."""
    if find_spec("cv2") is None:
        import av

        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24")
        return
    import cv2

    capture = cv2.VideoCapture(str(path))
    while True:
        is_there, frame = capture.read()
        if not is_there:
            break
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    capture.release()
