"""Several augmented views of every frame as one row: the frame as the encoder sees it, then views drawn once a video.

    stored frame   0 1 2 3 ...        of one video
    view 0         0 1 2 3 ...        as without views
    view 1         crop, mirror, colours, blur; the same for all frames of the video
    view 2         others             ...                       rows (T, V, ...) of every output

What a view gets follows from the seed, its number and the video's content. Source: CARL (B3.2 of the domain
reference), whose ResNet can so be stored up to its layer 3.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from reelwright.stages.augment.clips import Generators, augment
from reelwright.stages.augment.config import ViewSettings
from reelwright.stages.augment.resized_crop import ClipTransform
from reelwright.stages.augment.transforms import clip_transforms
from reelwright.stages.datasets.sampling.generators import generator_at
from reelwright.stages.decode.geometry import Geometry, apply
from reelwright.stages.decode.source import Events, FrameChunk
from reelwright.stages.embed.encoding.encoder import LoadedEncoder
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.embed.videos import Selection
from reelwright.storage.errors import ConfigError

Frames = npt.NDArray[np.uint8]


def views_of(loaded: LoadedEncoder, *, where: str) -> Selection:
    """What becomes of frames before an encoder sees them whose node asks for views; nothing where it does not.

    Raises ConfigError for views of clips, or augmentation that cannot be made.
    """
    settings = loaded.config.views
    if settings is None:
        return Selection()
    if loaded.encoder.kind == "video":
        raise ConfigError(f"{where}: views are of single frames, but {loaded.name} sees clips. Remove views.")
    geometry = geometry_of(loaded.data_config)
    transforms = clip_transforms(settings.augment, geometry, seed=settings.seed)
    return Selection(geometry=Geometry(), through=FrameViews(settings, geometry, transforms).through)


@dataclass(frozen=True)
class FrameViews:
    """Turns chunks of stored frames (n, H, W, 3) into such of all their views (n, V, h, w, 3), bytes both."""

    settings: ViewSettings
    geometry: Geometry
    transforms: tuple[ClipTransform, ...]

    def through(self, events: Events) -> Events:
        """The same events, each frame as its views; closing it closes ``events``."""
        with closing(events):  # type: ignore[type-var]  # it is a generator, which has close
            for event in events:
                yield self._seen(event) if isinstance(event, FrameChunk) else event

    def _seen(self, chunk: FrameChunk) -> FrameChunk:
        place = int.from_bytes(chunk.digest.encode())
        plain = apply(chunk.frames, self.geometry)
        views = [plain, *(self._augmented(chunk.frames, view, place) for view in range(1, self.settings.num))]
        return replace(chunk, frames=np.stack(views, axis=1))

    def _augmented(self, frames: Frames, view: int, place: int) -> Frames:
        for transform in self.transforms:
            frames = transform(frames, view, place)
        if self.settings.augment.crop_scale is None:
            frames = apply(frames, self.geometry)

        def generators(purpose: str) -> Generators:
            """The same draw for each frame, which is a clip by itself: it must not hang on how frames are cut up."""
            return [generator_at(self.settings.seed, purpose, epoch=view, place=place) for _ in frames]

        x_NTCHW = torch.from_numpy(frames).movedim(-1, 1)[:, None].float() / 255
        seen = augment(x_NTCHW, self.settings.augment, generators)[:, 0]
        found: Frames = (seen * 255).round().byte().movedim(1, -1).contiguous().numpy()
        return found
