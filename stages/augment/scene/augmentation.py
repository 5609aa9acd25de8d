"""All scene augmentations of a batch of clips on the device: what is drawn for each clip, then what is done.

    clips as read -> reversed -> smaller, elsewhere, displaced -> in front of a background -> seen by a moving camera
                         |                                               ^
                         +---- frames of the batch are its backgrounds --+

Everything is drawn once a clip from (seed, epoch, place), so a resumed run sees the same clips.
Source: fractal_video (3.10 of the domain reference).
Shape letters: B clips, T frames of a clip, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.augment.scene.config import (
    BackgroundSettings,
    CameraSettings,
    ScaleSettings,
    SceneSettings,
    ShiftSettings,
)
from reelwright.stages.augment.scene.layers import (
    Background,
    Placement,
    draw_background,
    draw_placement,
    mixed,
    placed,
    shown_behind,
)
from reelwright.stages.augment.scene.motion import (
    Curriculum,
    draw_corners,
    draw_shake,
    draw_shift,
    draw_zoom,
    shift_crops,
)
from reelwright.stages.augment.scene.warp import (
    Matrices,
    crop_matrices,
    looked_at,
    moved,
    perspective_matrix,
    zoom_matrices,
)
from reelwright.stages.datasets.sampling.generators import generators_at


@dataclass(frozen=True, kw_only=True)
class EpochSteps:
    """What an epoch is made of: so many batches of (but for the last) so many clips, over all processes."""

    num_batches: int
    clips_per_batch: int

    def curriculum(self, epochs: float, *, epoch: int, place: int) -> Curriculum:
        """Where the batch that has the clip at ``place`` of an epoch stands in a curriculum of so many epochs."""
        step = epoch * self.num_batches + min(place // self.clips_per_batch, self.num_batches - 1)
        return Curriculum(step, round(epochs * self.num_batches))


class SceneAugmentation:
    """Scene augmentations of clips (B,T,C,H,W) float in [0, 1]; labels stay those of the clips."""

    def __init__(self, settings: SceneSettings, *, seed: int, steps: EpochSteps, num_views: int = 1) -> None:
        """With ``num_views`` 2, clips at places 2 n and 2 n + 1 are query and key of one video.

        Both are reversed alike, and queries have backgrounds from among queries, keys from among keys.
        """
        self.settings, self.seed, self.steps, self.num_views = settings, seed, steps, num_views

    @torch.no_grad()
    def __call__(self, x_BTCHW: Tensor, mask_BT: Tensor | None = None, *, epoch: int, places: Sequence[int]) -> Tensor:
        """Clips of the same shape, type and range.

        ``places`` are those of the clips in the epoch's order. ``mask_BT`` tells which frames are real: the others stay
        where they are when a clip is reversed. Of the other clips of the batch, only frames behind it reach a clip.
        """
        settings = self.settings
        draws = _SceneSampler(self, (x_BTCHW.shape[1], x_BTCHW.shape[-2], x_BTCHW.shape[-1]), epoch, places)
        x_BTCHW = _reversed(x_BTCHW, mask_BT, draws.reversed_clips()) if settings.reverse else x_BTCHW
        sources = x_BTCHW
        if settings.foreground is not None:
            placements = zip(x_BTCHW, draws.placements(settings.foreground.scale), strict=True)
            x_BTCHW = torch.stack([clip if where is None else placed(clip, where) for clip, where in placements])
            x_BTCHW = _seen(x_BTCHW, draws.foreground_shifts(settings.foreground.shift))
        if settings.background is not None:
            drawn = zip(x_BTCHW, draws.backgrounds(settings.background), strict=True)
            x_BTCHW = torch.stack(
                [
                    clip if back is None else mixed(clip, shown_behind(sources, back.source), back)
                    for clip, back in drawn
                ]
            )
        return x_BTCHW if settings.camera is None else _seen(x_BTCHW, draws.cameras(settings.camera))


@dataclass(frozen=True)
class _View:
    """What a camera sees of a clip."""

    matrices: Matrices  # (T, 3, 3), or (1, 3, 3) where it stands still
    is_black_around: bool = False


class _Occasional(Protocol):
    @property
    def probability(self) -> float: ...


S = TypeVar("S", bound=_Occasional)


class _SceneSampler:
    """What is drawn for the clips of a batch: each purpose has streams of its own, so that switches are independent."""

    def __init__(self, of: SceneAugmentation, shape: tuple[int, int, int], epoch: int, places: Sequence[int]) -> None:
        """``shape`` of a clip: (T, H, W)."""
        self.of, self.shape, self.epoch, self.places = of, shape, epoch, places
        self.view_B = np.asarray(places) % of.num_views
        self.is_easy_B = (self.view_B > 0) & of.settings.easy_key
        epochs = of.settings.curriculum_epochs
        self.curricula = [of.steps.curriculum(epochs, epoch=epoch, place=place) for place in places]
        self.frame = {"height": shape[1], "width": shape[2]}
        self.moved = {"num_frames": shape[0], "height": shape[1]}

    def reversed_clips(self) -> list[int]:
        """Numbers of the clips that are played backwards."""
        videos = [place // self.of.num_views for place in self.places]
        coins = generators_at(self.of.seed, "scene reverse", epoch=self.epoch, places=videos)
        return [at for at, coin in enumerate(coins) if coin.random() < self.of.settings.reverse]

    def placements(self, settings: ScaleSettings | None) -> list[Placement | None]:
        """Of every clip; None: as it is."""
        found: list[Placement | None] = [None] * len(self.places)
        for at, how, generator in self._chosen(settings, "size", of_easy=True):
            can_clone = not self.is_easy_B[at]
            found[at] = draw_placement(
                how, self.curricula[at], shape=self.shape, can_clone=can_clone, generator=generator
            )
        return found

    def backgrounds(self, settings: BackgroundSettings) -> list[Background | None]:
        """Of every clip; None: its own."""
        found: list[Background | None] = [None] * len(self.places)
        for at, how, generator in self._chosen(settings, "background", of_easy=True):
            found[at] = draw_background(
                how,
                self.curricula[at],
                among=np.flatnonzero(self.view_B == self.view_B[at]),
                shape=self.shape,
                can_move=not self.is_easy_B[at],
                generator=generator,
            )
        return found

    def foreground_shifts(self, settings: ShiftSettings | None) -> list[_View | None]:
        """How every clip is displaced; None: not."""
        found: list[_View | None] = [None] * len(self.places)
        for at, matrices in self._shifts(settings, "foreground shift"):
            found[at] = _View(matrices)
        return found

    def cameras(self, settings: CameraSettings) -> list[_View | None]:
        """What cameras see of every clip; None: all, standing still. In perspective first, then the motions."""
        found: list[_View | None] = [None] * len(self.places)
        for at, look, generator in self._chosen(settings.perspective, "perspective"):
            corners = draw_corners(look.distortion, **self.frame, generator=generator)
            matrix = perspective_matrix(corners, **self.frame, zoom=look.zoom)
            found[at] = _View(matrix, is_black_around=True)
        motions = [*self._shifts(settings.shift, "camera shift")]
        for at, zoom, generator in self._chosen(settings.zoom, "zoom"):
            scales = draw_zoom(zoom, self.curricula[at], num_frames=self.shape[0], generator=generator)
            motions.append((at, zoom_matrices(scales, **self.frame)))
        for at, shake, generator in self._chosen(settings.shake, "shake"):
            crops = draw_shake(shake, self.curricula[at], **self.moved, generator=generator)
            motions.append((at, crop_matrices(crops, **self.frame)))
        for at, matrices in motions:
            before = found[at]
            found[at] = _View(matrices) if before is None else _View(before.matrices @ matrices, before.is_black_around)
        return found

    def _shifts(self, settings: ShiftSettings | None, purpose: str) -> Iterator[tuple[int, Matrices]]:
        for at, how, generator in self._chosen(settings, purpose):
            shift = draw_shift(how, self.curricula[at], **self.moved, generator=generator)
            yield at, crop_matrices(shift_crops(shift, self.shape[0]), **self.frame)

    def _chosen(
        self, settings: S | None, purpose: str, *, of_easy: bool = False
    ) -> Iterator[tuple[int, S, np.random.Generator]]:
        """The clips that the coin chooses, with what their coin's generator draws next."""
        if settings is None:
            return
        generators = generators_at(self.of.seed, f"scene {purpose}", epoch=self.epoch, places=self.places)
        for at, generator in enumerate(generators):
            if generator.random() < settings.probability and (of_easy or not self.is_easy_B[at]):
                yield at, settings, generator


def _reversed(x_BTCHW: Tensor, mask_BT: Tensor | None, chosen: Sequence[int]) -> Tensor:
    order_BT = torch.arange(x_BTCHW.shape[1]).repeat(len(x_BTCHW), 1)
    is_real_BT = torch.ones_like(order_BT, dtype=torch.bool) if mask_BT is None else mask_BT.cpu()
    for at in chosen:
        order_BT[at, is_real_BT[at]] = order_BT[at, is_real_BT[at]].flip(0)
    order_BT = order_BT.to(x_BTCHW.device)
    return x_BTCHW[torch.arange(len(x_BTCHW), device=x_BTCHW.device)[:, None], order_BT]


def _seen(x_BTCHW: Tensor, views: Sequence[_View | None]) -> Tensor:
    """Every clip as its camera sees it; those without one stay as they are."""
    for kernel, is_black_around in ((moved, False), (looked_at, True)):
        chosen = {
            at: np.broadcast_to(view.matrices, (x_BTCHW.shape[1], 3, 3))
            for at, view in enumerate(views)
            if view is not None and view.is_black_around is is_black_around
        }
        if chosen:
            places = torch.tensor([*chosen], device=x_BTCHW.device)
            found = kernel(x_BTCHW[places], np.stack([*chosen.values()]))
            x_BTCHW = x_BTCHW.index_copy(0, places, found)
    return x_BTCHW
