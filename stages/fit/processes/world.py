"""The processes that train together: who they are, and the few things they tell each other.

Processes are those of torchrun's contract (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT in the environment),
whoever started them. Tensors on GPUs travel by NCCL, all else by gloo.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from reelwright.stages.base.devices import local_gpu
from reelwright.storage.errors import StageError

T = TypeVar("T", bound=np.generic)

TIMEOUT = dt.timedelta(hours=1)  # of one exchange, as while one reads the embeddings; deaths are noticed by the starter


class GivenUp(Exception):  # noqa: N818 - nothing is wrong
    """Some process gave up what all were doing together (`World.give_up`), and so all do."""


@dataclass(frozen=True)
class World:
    """One process among ``size`` that train together; a single one needs no exchange."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and reports."""
        return self.rank == 0

    def share(self, items: npt.NDArray[T]) -> npt.NDArray[T]:
        """The part of ``items``, as of a batch, that this process takes; empty where there are fewer than processes.

        Parts are contiguous, and the first ones get one more where it is uneven.
        """
        whole, more = divmod(len(items), self.size)
        start = self.rank * whole + min(self.rank, more)
        return items[start : start + whole + (self.rank < more)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in their order. Raises GivenUp where one has given up instead."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        if any(isinstance(each, GivenUp) for each in found):
            raise GivenUp
        return found

    def give_up(self) -> NoReturn:
        """Raise GivenUp here, and in the others when they next gather."""
        self.gather(GivenUp())
        raise AssertionError

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            self.gather(None)


ALONE = World()


def wanted_size() -> int:
    """How many processes the environment says there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def machine_name() -> str:
    """What the processes of one machine share and no other machine has: torchrun may start several on one."""
    group = os.environ.get("GROUP_RANK")
    return platform.node() if group is None else f"{platform.node()}.{group}"


@contextlib.contextmanager
def joined(*, use_gpu: bool) -> Iterator[World]:
    """Connect this process with those that the environment names, while the block runs; alone without any.

    Raises StageError when the others cannot be reached.
    """
    size = wanted_size()
    if size == 1:
        yield ALONE
        return
    world = World(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    if use_gpu:
        torch.cuda.set_device(local_gpu())
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if use_gpu else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise StageError(
            f"process {world.rank} of {size} cannot reach the others ({error}). Start them with `reelwright train "
            "--nproc N`, which sets MASTER_ADDR and MASTER_PORT."
        ) from error
    try:
        yield world
    finally:
        dist.destroy_process_group()
