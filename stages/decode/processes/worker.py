"""The process at the other end of `pool.WorkerPool`: runs functions named as text. Started as a module, never by hand.

python -m reelwright.stages.decode.processes.worker MODULE SOCKET [MEMORY]

SOCKET and MEMORY are file descriptors; MODULE, which may be "", is imported before there is work.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from reelwright.stages.decode.processes import wire
from reelwright.stages.decode.processes.slots import Slots
from reelwright.storage.errors import ItemError, UnusableMachineError, UnusableStoreError
from reelwright.storage.store_errors import why_broken

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve tasks until the parent is gone."""
    _die_with_parent()
    module, descriptor, *memory = sys.argv[1:]
    connection = socket.socket(fileno=int(descriptor))
    slots = Slots(int(memory[0])) if memory else None
    if module:
        with contextlib.suppress(ImportError):  # the task that needs it says so
            import_module(module)
    with contextlib.suppress(EOFError, ConnectionError):
        hello, _ = wire.receive(connection)
        sys.path[:] = hello["path"]
        wire.send(connection, {"kind": "ready"})
        while True:
            task, _ = wire.receive(connection)
            _serve(connection, task, slots)


def _serve(connection: socket.socket, task: dict[str, Any], slots: Slots | None) -> None:
    """Send what the function yields, then how it ended."""
    try:
        messages: Iterator[tuple[dict[str, Any], wire.Arrays]] = _function(task["function"])(**task["arguments"])
        for header, arrays in messages:
            _send(connection, {"kind": "message", "body": header}, arrays, slots=slots)
        _send(connection, {"kind": "done"})
    except ItemError as error:
        _send(connection, _failure(error.status, error.cause, str(error)))
    except UnusableStoreError as error:
        _send(connection, _failure(wire.UNUSABLE, wire.STORE, str(error)))
    except UnusableMachineError as error:
        _send(connection, _failure(wire.UNUSABLE, wire.MACHINE, str(error)))
    except ImportError as error:
        _send(connection, _failure("failed", wire.NO_BACKEND, f"cannot be loaded: {error}"))
    except OSError as error:
        _send(connection, _of_system(error, source=str(task["arguments"].get("path", ""))))
    except MemoryError:
        _send(connection, _failure("failed", "out_of_memory", "the decoding process ran out of memory"))
    except Exception as error:  # noqa: BLE001 - the item boundary: one video's failure becomes its row
        _send(connection, _failure("failed", "error", f"{type(error).__name__}: {error}"))


def _send(
    connection: socket.socket, header: dict[str, Any], arrays: wire.Arrays = (), *, slots: Slots | None = None
) -> None:
    """Send a message; end this process when the parent is gone. A task's own ConnectionError is not of this socket."""
    try:
        wire.send(connection, header, arrays, slots=slots)
    except ConnectionError:
        sys.exit(0)


def _of_system(error: OSError, *, source: str) -> dict[str, Any]:
    """How a task ended by a system error: this machine is to blame, or the video at ``source``."""
    broken = why_broken(error)
    is_of_source = error.filename is not None and Path(str(error.filename)).is_relative_to(source or "/dev/null")
    if broken is None and error.errno == errno.EIO and type(error) is OSError and not is_of_source:
        broken = f"{error.filename or 'a disk'}: {error.strerror}. Check the disk, then run again"
    if broken is not None:
        return _failure(wire.UNUSABLE, wire.MACHINE, broken)
    return _failure("failed", "error", f"{type(error).__name__}: {error}")


def _failure(status: str, cause: str, message: str) -> dict[str, Any]:
    return {"kind": "failed", "status": status, "cause": cause, "message": message}


def _function(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    return getattr(import_module(module), function)  # type: ignore[no-any-return]


def _die_with_parent() -> None:
    """Ctrl-C is the parent's to handle; when the parent is killed, so are we, even inside a hanging decoder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)


if __name__ == "__main__":
    main()
