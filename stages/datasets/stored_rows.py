"""The stored rows of one video, of several stores joined by time and concatenated along D.

Every row of the first store takes the row of another store that saw its middle:

    first    | 0 | 1 | 2 | 3 | 4 | 5 |      a row a frame
    second   |     0     |     1     |      a row a clip
    joined    0,0 1,0 2,0 3,1 4,1 5,1

Tokens that keep their positions lie one behind the other instead, of rows that are of the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reelwright.storage.arrays.embeddings import EmbeddingRows, EmbeddingStore
from reelwright.storage.arrays.spans import Spans, join_by_time
from reelwright.storage.errors import InputError, ItemError, StoreError, UnusableStoreError, nearest
from reelwright.storage.ledger.items import ItemRow

MOST_UNSEEN = 0.1  # share of a video's time, at either end, of which another store may have no rows
READ_ROWS = 1024  # rows of a token or map output that are in memory while they are averaged


def read_video(
    stores: Sequence[EmbeddingStore], digest: str, *, output: str, keeps_positions: bool = False
) -> tuple[npt.NDArray[Any], Spans]:
    """The joined rows (T, D) of one video and their spans. Raises ItemError (not_finite) for NaN or infinite rows."""
    video = StoredVideo.of(stores, digest, output=output, keeps_positions=keeps_positions)
    return video.read(0, len(video)), video.spans


def failed_row(digest: str, error: ItemError | StoreError, *, cause: str = "no_embeddings") -> ItemRow:
    """The ledger's row of a video whose rows cannot be read, for ``cause`` where the error has none of its own.

    Raises the error where it is the store as a whole that cannot be used.
    """
    if isinstance(error, UnusableStoreError):
        raise error
    if isinstance(error, ItemError):
        return ItemRow(digest=digest, status=error.status, cause=error.cause, message=str(error))
    return ItemRow(digest=digest, status="failed", cause=cause, message=str(error))


@dataclass(frozen=True)
class StoredVideo:
    """The joined rows of one video, read part by part."""

    spans: Spans
    videos: tuple[EmbeddingRows, ...]  # of each store
    source: JoinedRows

    @classmethod
    def of(
        cls, stores: Sequence[EmbeddingStore], digest: str, *, output: str, keeps_positions: bool = False
    ) -> StoredVideo:
        """Raises StoreError for a video or an output that is not stored."""
        videos = tuple(store.rows(digest) for store in stores)
        source = JoinedRows.of(stores, videos, output, keeps_positions=keeps_positions)
        return cls(videos[0].spans, videos, source)

    def __len__(self) -> int:
        return len(self.spans.start_seconds)

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop), (n, D). Raises ItemError (not_finite) for NaN or infinite rows."""
        rows = np.empty((stop - start, *self.source.shape), dtype=self.source.dtype)
        self.source.fill(rows, self.videos, self.spans, start=start)
        return rows


def num_features(stores: Sequence[EmbeddingStore], output: str, *, takes_views: bool = False) -> int:
    """D of the joined rows, as the stores describe themselves.

    Raises StoreError for an output that is not stored, or rows of several views; with ``takes_views`` for such of
    several stores, or that are not (V, D).
    """
    total = 0
    for store in stores:
        shape = stored_shape(store, output)
        if not takes_views:
            _check_one_view(store)
        elif "views" in store.spec and (len(stores) > 1 or len(shape) != 2):
            found = f"{len(stores)} embed nodes" if len(stores) > 1 else f"output {output!r} with rows of {shape[1:]}"
            raise StoreError(
                f"of rows of several views only vectors (D,) of one embed node are taken (and maps, with model.source: "
                f"maps), not {found}. Name one node, and its output pooled; or embed without views."
            )
        total += features_of(shape)
    return total


def stored_shape(store: EmbeddingStore, output: str) -> tuple[int, ...]:
    """Of a row, of several views all of them. Raises StoreError for an output that is not stored."""
    shapes = store.spec["outputs"]
    if output not in shapes:
        raise StoreError(
            f"output {output!r} is not stored in {store.path}.{nearest(output, shapes)} "
            f"Stored: {', '.join(shapes)}. Ask the embed node for it with `outputs`."
        )
    return tuple(shapes[output])


def split_missing(stores: Sequence[EmbeddingStore], digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """``digests`` that are in all stores, and those that are not."""
    for store in stores:
        store.bring(digests)
    present = [digest for digest in digests if all(digest in store for store in stores)]
    return present, sorted(set(digests) - set(present))


def mean_vectors(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Vectors (T, D) as they are; tokens (T, N, D) and maps (T, C, ...) averaged over their positions, float32."""
    if values.ndim == 2:
        return values
    averaged: npt.NDArray[np.float32] = values.astype(np.float32).mean(
        axis=1 if values.ndim == 3 else tuple(range(2, values.ndim))
    )
    return averaged


@dataclass(frozen=True)
class JoinedRows:
    """How the rows of all stores become vectors side by side."""

    output: str
    row_shapes: tuple[tuple[int, ...], ...]  # of one row, by store
    dtype: np.dtype[Any]  # of the joined rows
    stores: tuple[EmbeddingStore, ...]
    keeps_positions: bool

    @classmethod
    def of(
        cls, stores: Sequence[EmbeddingStore], videos: Sequence[EmbeddingRows], output: str, *, keeps_positions: bool
    ) -> JoinedRows:
        """All videos of a store have rows of one shape, so one video tells it. Raises StoreError for no such output.

        With positions, tokens and maps are not averaged; raises InputError for several stores, but of tokens of one
        width.
        """
        shapes = tuple(rows.row_shape(output) for rows in videos)
        follow = len(shapes) == 1 or all(len(shape) == 2 and shape[1] == shapes[0][1] for shape in shapes)
        if keeps_positions and not follow:
            raise InputError(
                f"the model reads positions, which {len(stores)} embeddings do not share; name one of them."
            )
        is_averaged = not keeps_positions and any(len(shape) > 1 for shape in shapes)
        is_half = all(store.spec["dtype"] == "float16" for store in stores) and not is_averaged
        # float16 where that is what was stored: nothing is lost and half the memory is saved
        return cls(output, shapes, np.dtype(np.float16 if is_half else np.float32), tuple(stores), keeps_positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a joined row: (D,), or with positions that of the one store or of all tokens (N, D)."""
        return joined_shape(self.row_shapes) if self.keeps_positions else (sum(map(features_of, self.row_shapes)),)

    def fill(self, target: npt.NDArray[Any], videos: Sequence[EmbeddingRows], spans: Spans, *, start: int = 0) -> None:
        """Write joined rows of one video, those from ``start`` on, into ``target`` (n, D).

        ``spans`` are those of all rows of its first store. Raises StoreError for rows of several views, ItemError
        (other_times) for rows of a store that are of a part of the video only.
        """
        for store in self.stores:
            _check_one_view(store)
        column, stop = 0, start + len(target)
        if self.keeps_positions:
            self._fill_positions(target, videos, spans, start=start)
            _check_finite(target, start)
            return
        for position, (rows, shape) in enumerate(zip(videos, self.row_shapes, strict=True)):
            features = slice(column, column + features_of(shape))
            column = features.stop
            if position == 0:
                for first, values in self._vectors(rows, shape, start, stop):
                    target[first - start : first - start + len(values), features] = values
            else:
                _check_same_time(spans, rows.spans, position + 1)
                places = join_by_time(spans, rows.spans)[start:stop]
                low = int(places.min())
                parts = [values for _, values in self._vectors(rows, shape, low, int(places.max()) + 1)]
                target[:, features] = np.concatenate(parts)[places - low]
        _check_finite(target, start)

    def _fill_positions(
        self, target: npt.NDArray[Any], videos: Sequence[EmbeddingRows], spans: Spans, *, start: int
    ) -> None:
        """Raises ItemError where rows of the stores are not of the same frames."""
        for number, rows in enumerate(videos[1:], start=2):
            pairs = ((spans.source_start, rows.spans.source_start), (spans.source_stop, rows.spans.source_stop))
            if not all(np.array_equal(first, other) for first, other in pairs):
                raise ItemError(
                    "other_clips",
                    f"rows of embeddings 1 and {number} are not of the same frames, so their tokens do not belong "
                    "together. Give both embed nodes the same frames and clip.",
                )
        stop = start + len(target)
        for first in range(start, stop, READ_ROWS):
            last, token = min(first + READ_ROWS, stop), 0
            for rows in videos:
                values = rows.output(self.output, first, last)
                part = slice(token, token + values.shape[1]) if len(videos) > 1 else slice(None)
                target[first - start : last - start, part] = values
                token += values.shape[1]

    def _vectors(
        self, rows: EmbeddingRows, shape: tuple[int, ...], start: int, stop: int
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Rows as vectors, part by part with the first row's number, so that wide outputs are never held whole."""
        if len(shape) == 1:
            yield start, rows.output(self.output, start, stop)
            return
        for first in range(start, stop, READ_ROWS):
            yield first, mean_vectors(rows.output(self.output, first, min(stop, first + READ_ROWS)))


def joined_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Of a row that keeps its positions, of one store or of tokens (N, D) of several, one behind the other."""
    return shapes[0] if len(shapes) == 1 else (sum(shape[0] for shape in shapes), shapes[0][1])


def features_of(shape: tuple[int, ...]) -> int:
    """Of a row of that shape: vectors (D,) and tokens (N, D) have D, maps (C, ...) have C."""
    return shape[-1] if len(shape) <= 2 else shape[0]


def _check_one_view(store: EmbeddingStore) -> None:
    if "views" in store.spec:
        raise StoreError(
            f"rows of {store.path} are {store.spec['views']} views each, of which no average is taken. Name an embed "
            "node without views."
        )


def _check_same_time(first: Spans, other: Spans, number: int) -> None:
    """Rows at both ends may be in no clip of the other store: so many as lie between two of its rows, or a few."""
    if len(other.start_seconds) < 2:
        return
    middle = (first.start_seconds + first.stop_seconds) / 2
    beyond = max(other.start_seconds[0] - middle[0], middle[-1] - other.stop_seconds[-1])
    step = max(np.diff(other.start_seconds).max(), (other.stop_seconds - other.start_seconds).max())
    if beyond > max(2 * step, MOST_UNSEEN * (middle[-1] - middle[0])):
        raise ItemError(
            "other_times",
            f"its rows of embedding 1 lie in {middle[0]:.2f} to {middle[-1]:.2f} s, those of embedding {number} in "
            f"{other.start_seconds[0]:.2f} to {other.stop_seconds[-1]:.2f} s alone. Give both decode nodes the same "
            "start and stop, or the one with fewer rows first.",
        )


def _check_finite(values: npt.NDArray[Any], start: int) -> None:
    is_bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if is_bad.any():
        bad, more = start + int(is_bad.argmax()), int(is_bad.sum()) - 1
        raise ItemError("not_finite", f"row {bad} of its embeddings (and {more} more) holds NaN or infinity.")
