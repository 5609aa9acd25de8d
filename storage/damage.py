"""Damaged files of a store: whatever their reader raises becomes one message, which says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from reelwright.storage.errors import ReelwrightError, StoreError

_RAISED = (ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise in the block into StoreError.

    Errors of the system (not there, no permission) and those that are meant for people pass.
    """
    try:
        yield
    except ReelwrightError:
        raise
    except _RAISED as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(path, str(error)) from error  # pyarrow's, of a Parquet file that it cannot decode


def damaged(path: Path, why: str) -> StoreError:
    """The error for a file that is not as it was written."""
    first = (why.strip().splitlines() or ["unknown"])[0]
    return StoreError(
        f"{path} is damaged ({first}). Run `reelwright verify --repair`, with --all where only another pipeline "
        "file reaches it"
    )
