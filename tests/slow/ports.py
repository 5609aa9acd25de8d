"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

_RANGE = range(20_000, 32_000)  # below those that the system gives outgoing connections, which come and go
_chance = random.SystemRandom()  # two test processes look at once


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at. Raises OSError when there are too few."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in _chance.sample(_RANGE, len(_RANGE)):
            if len(found) == count:
                return found
            held = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                held.bind(("", port))
                found.append(port)
        raise OSError(f"no {count} ports are free between {_RANGE.start} and {_RANGE.stop}")
