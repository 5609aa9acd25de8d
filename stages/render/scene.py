"""What is drawn: the rows of the videos, which of them are paired, and their frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from reelwright.models.metrics.probes.alignment import ALIGNMENTS
from reelwright.models.metrics.probes.embedded_videos import EmbeddedVideo, Integers
from reelwright.stages.base.work import Work
from reelwright.stages.evaluate.pages.frame_source import payload_items
from reelwright.stages.render.config import RenderConfig
from reelwright.stages.show.row_frames import Floats, RowFrames, row_frames
from reelwright.storage.store import Store


class NoFramesError(Exception):
    """A picture needs frames that are not there; the text says of which video, and why."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that pictures are made of."""

    config: RenderConfig
    work: Work
    videos: Mapping[str, EmbeddedVideo]  # by video_id, in order; every `stride` rows
    stack: ExitStack  # closed when all is drawn
    _kept: dict[str, RowFrames] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def drawn(self) -> list[str]:
        """Names of the videos of the splits that are drawn, in order, and of those that are named."""
        splits = {entry["video_id"]: entry["split"] for entry in self.work.payload["videos"]}
        named = {name for names in self.config.named_videos().values() for name in names}
        return [name for name in self.videos if name in named or splits[name] in self.config.splits]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(query, key): those that are named, or neighbours."""
        return list(self.config.pairs) or list(pairwise(self.drawn))[: self.config.num_pairs]

    @property
    def queries(self) -> list[str]:
        """Those that are named, or the first video."""
        return list(self.config.queries) or self.drawn[:1]

    def others(self, query: str) -> list[str]:
        """All but the query: those that come after it, then those before."""
        place = self.drawn.index(query)
        return [*self.drawn[place + 1 :], *self.drawn[:place]]

    def aligned(self, query: str, key: str, *, method: str) -> Integers:
        """The row of the key for each row of the query. Raises ValueError for videos that are too long to be warped."""
        return ALIGNMENTS[method](self.videos[query].rows, self.videos[key].rows, distance=self.config.distance)

    @contextmanager
    def frames(
        self, wanted: Mapping[str, Floats], *, height: int, are_needed: bool = True
    ) -> Iterator[dict[str, RowFrames]]:
        """Frames of videos at times, by name, as long as the block lasts.

        A video whose rows are all wanted is decoded once for all pictures.

        Raises NoFramesError where a video has none and they ``are_needed``.
        """
        self._kept.update(
            self.stack.enter_context(
                self._opened(
                    {name: times for name, times in wanted.items() if len(times) == len(self.videos[name])},
                    height=max(height, self.config.height),
                )
            )
        )
        with self._opened(wanted, height=height) as opened:
            found = {**opened, **{name: self._kept[name] for name in wanted if name in self._kept}}
            missing = [f"{name}: {each.note or 'no frames'}" for name, each in found.items() if not each.times]
            if missing and are_needed:
                raise NoFramesError("; ".join(missing))
            yield found

    def _opened(self, wanted: Mapping[str, Floats], *, height: int) -> AbstractContextManager[dict[str, RowFrames]]:
        """Frames of those of the videos that are not kept."""
        items, (behind,) = payload_items(self.work.payload), self.work.inputs["embeddings"]
        times = {items[name]: seconds for name, seconds in wanted.items() if name not in self._kept}
        return row_frames(times, behind=behind, store=Store.at(self.work.store), height=height)
