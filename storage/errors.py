"""The errors of Reelwright, one tree.

ReelwrightError
|-- ConfigError (ValueError)    a pipeline file, a setting or an override is wrong; exit code 2
|-- InputError (ValueError)     a manifest, label table, weights file or video list is wrong; exit code 2
|-- StoreError                  what lies in the store is missing, damaged or cannot be written; exit code 1
|   `-- UnusableStoreError     the store as a whole: full, read-only, gone or out of reach; ends a run, where StoreError
|       |                      may end an item
|       `-- LostLockError      another process took over a lock that was held: nothing more may be written; exit code 1
|-- StageError                  a stage could not do its work at all; exit code 1
|   `-- UnusableMachineError   this machine: a library is missing, a disk is full or away; ends a run, blames no video
|-- ItemError                   one video could not be done; becomes a row, the others go on; exit code 3
`-- Interrupted                 the scheduler asked to stop; what was done is kept, run again; exit code 75

Every message says what, the value, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


class ReelwrightError(Exception):
    """The root of all errors that are meant for people."""


class ConfigError(ReelwrightError, ValueError):
    """A pipeline file, a setting or an override is wrong."""


class InputError(ReelwrightError, ValueError):
    """A manifest, a label table or a weights file is wrong. ``problems`` lists all of them, one line each."""

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__("\n  ".join([message, *self.problems]))


class StoreError(ReelwrightError):
    """What lies in the store is missing, damaged or cannot be written."""


class UnusableStoreError(StoreError):
    """The store as a whole cannot be used: the disk is full, it is read-only, gone, or does not answer."""


class LostLockError(UnusableStoreError):
    """Another process took over a lock that this one held, so that it must not write to the store any more."""


class StageError(ReelwrightError):
    """A stage could not do its work at all."""


class UnusableMachineError(StageError):
    """What a stage needs of the machine is not there: a library, room on a disk, a server, processes."""


class ItemError(ReelwrightError):
    """One video could not be done: ``cause`` is a short word (``no_video_stream``), the message tells the rest."""

    def __init__(self, cause: str, message: str, *, status: str = "failed") -> None:
        self.cause = cause
        self.status = status
        super().__init__(message)


class Interrupted(ReelwrightError):  # noqa: N818 - not an error: run again
    """The scheduler asked to stop (SIGTERM, SIGUSR1); what was done is kept, and the next run goes on from there."""


def nearest(name: str, known: Iterable[str], renamed: Mapping[str, str] = MappingProxyType({})) -> str:
    """A hint such as `` Did you mean 'stride'?``, or an empty text when nothing is near.

    ``renamed`` has names of earlier releases: old -> new, and after a colon what else is different.

    Among equally near ones the first of ``known`` is meant, and one with the same letters in another order before all.
    """
    if name in renamed:
        new, colon, note = renamed[name].partition(": ")
        return f" {name!r} is called {new!r} now{colon}{note}."
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=0.6)
    likeness = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in close}
    best = min(
        close, key=lambda other: (sorted(other) != sorted(name), -likeness[other], names.index(other)), default=None
    )
    return "" if best is None else f" Did you mean {best!r}?"
