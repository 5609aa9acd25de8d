"""Videos, or shards of one, done under claims: each is written by one process among all that share a store.

claims/<node>/<video digest>             the video: begun, done whole, or published
claims/<node>/<video digest>.<number>    one shard of it
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reelwright.stages.base.registry import load
from reelwright.stages.base.work import Reporter, Shards, SharedVideo, Work, ledger_of
from reelwright.storage.locks.locks import exclusive
from reelwright.storage.store import Store


def do_videos(work: Work, function: str, *, what: str, reporter: Reporter) -> None:
    """Do the items by ``function``; those that another process has done meanwhile are reported as they are.

    In a bucket no videos are claimed: objects appear whole there, two workers would write the same rows of one, and a
    claim costs as many requests as the video itself.
    """
    store = Store.at(work.store)
    if store.url is not None:
        load(function)(work, reporter)
        return
    claims = store.claims(work.key)
    with contextlib.ExitStack() as stack:
        digests = sorted({item.digest for item in work.items})
        waits = [
            stack.enter_context(exclusive(claims / digest, report=reporter.note, what=what, is_kept=False))
            for digest in digests
        ]
        if any(waits) or _shards_were_claimed(claims, digests, reporter):
            known = ledger_of(work).load()
            done = [known[item.digest] for item in work.items if item.digest in known and known[item.digest].is_done]
            for row in done:
                reporter.item(row)
            gone = {row.digest for row in done}
            work = replace(work, items=tuple(item for item in work.items if item.digest not in gone))
        if work.items:
            load(function)(work, reporter)


def do_shards(work: Work, function: str, wanted: tuple[int, int], *, what: str, reporter: Reporter) -> Shards | None:
    """Do those of the shards [start, stop) of the only item that are missing, and publish it after the last of all.

    ``function`` names a `SharedVideo`; no shards wanted: the video is begun. Returns how far it is, or None where it
    cannot be shared, or was done meanwhile, which is reported.
    """
    digest = work.items[0].digest
    claims = Store.at(work.store).claims(work.key)
    claim = functools.partial(exclusive, report=reporter.note, what=what, is_kept=False)
    video: SharedVideo = load(function)(work, reporter)
    with contextlib.ExitStack() as stack:
        with claim(claims / digest):
            if _is_done(work, reporter):
                return None
            state = video.look() if wanted[0] < wanted[1] else video.begin()
            # Taken under the video's claim, and let go before that is taken again: nobody waits in a circle.
            for index in _missing(state, wanted):
                stack.enter_context(claim(claims / f"{digest}.{index}"))
            state = state and video.look()
            mine = _missing(state, wanted)
            if state is not None and not state.missing:
                state = video.begin()  # who publishes it has opened it
        if state is None or not all(video.write(start, stop) for start, stop in _runs(mine)):
            return None
    with claim(claims / digest):
        if _is_done(work, reporter):
            return None
        state = video.look()
        if state is not None and not state.missing:
            video.publish()
        return state


def _shards_were_claimed(claims: Path, digests: Sequence[str], reporter: Reporter) -> bool:
    """Wait for processes that still write single shards of these videos; whether there were any."""
    wanted = set(digests)
    names = sorted(path.name for path in claims.iterdir() if path.suffix and path.stem in wanted)
    for name in names:
        with exclusive(claims / name, report=reporter.note, is_kept=False):
            pass
    return bool(names)


def _missing(state: Shards | None, wanted: tuple[int, int]) -> list[int]:
    """Those of the wanted shards that nobody has written."""
    return [] if state is None else [index for index in state.missing if wanted[0] <= index < wanted[1]]


def _is_done(work: Work, reporter: Reporter) -> bool:
    """Whether the only item was done meanwhile; its row is then reported as it is."""
    row = ledger_of(work).pending(work.items[0].digest)
    if row is None or not row.is_done:
        return False
    reporter.item(row)
    return True


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as half-open ranges: 2, 3, 4, 7 -> (2, 5), (7, 8)."""
    for _, group in itertools.groupby(enumerate(numbers), lambda entry: entry[1] - entry[0]):
        run = [number for _, number in group]
        yield run[0], run[-1] + 1
