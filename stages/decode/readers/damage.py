"""Damage that decoding meets, and whether it reaches the frames that were asked for.

What is damaged between two key frames may be seen in any picture between them: each is made of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_MOST_DELAYED = 16  # pictures that come out after packets behind theirs went in (H.264 and HEVC: at most 16)


class Damage:
    """Of one video, over all that was decoded of it; numbers are those of frames."""

    def __init__(self) -> None:
        self._bad: dict[int, int] = {}  # packets that could not be decoded -> pictures that had come out before
        self._first_bad = ""
        self._concealed: set[int] = set()  # frames in which the decoder made up what is missing
        self._asked: set[int] = set()  # key frames from which frames that were asked for are decoded

    def packet(self, place: int, *, num_pictures: int, error: str) -> None:
        """Packet ``place`` of the file could not be decoded; ``num_pictures`` had come out by then."""
        self._first_bad = self._first_bad or f"after frame {num_pictures - 1}: {error}"
        self._bad[place] = num_pictures

    def concealed(self, number: int) -> None:
        """Parts of a frame were missing and are made up."""
        self._concealed.add(number)

    def asked(self, key: int) -> None:
        """A frame was asked for, which is decoded from key frame ``key`` on."""
        self._asked.add(key)

    def text(self) -> str:
        """All that was met; "" where there is none."""
        found = []
        if self._bad:
            found.append(f"packets that cannot be decoded: {len(self._bad)}, the first {self._first_bad}")
        if self._concealed:
            first, count = min(self._concealed), len(self._concealed)
            found.append(f"frames of which parts are missing and made up by the decoder: {count}, the first {first}")
        return "; ".join(found)

    def text_of_asked(self, keys: Sequence[int] | NDArray[np.int64]) -> str:
        """`text` where damage lies between the same two of the ``keys`` (ascending) as a frame that was asked for."""
        return self.text() if any(key in self._asked for key in self._harmed(np.asarray(keys, np.int64))) else ""

    def _harmed(self, keys: NDArray[np.int64]) -> Iterator[int]:
        """Key frames from which damaged frames are decoded, 0 where none is known.

        Of a key frame also the one before: frames shown before it may be made of it.
        """
        spans = [(number - 1, number) for number in self._concealed]
        spans += [(number - 1, number + _MOST_DELAYED) for number in self._bad.values()]
        for first, last in spans:
            begin, end = (int(np.searchsorted(keys, max(number, 0), side="right")) for number in (first, last))
            yield from (int(keys[place - 1]) if place else 0 for place in range(begin, end + 1))
