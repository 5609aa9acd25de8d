"""One weight update: forward and backward of its batches, what the processes agree on, the finite check, the step.

The loss of an update is the mean over all items of all its batches on all processes: every part is weighted by what it
counts for, so that neither accumulation nor the number of processes changes it, uneven last batches included.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from reelwright.models.blocks.synced_norm import convert_batch_norms, count_batches
from reelwright.models.contracts import Inputs, VideoModel
from reelwright.stages.base.devices import Download, Upload
from reelwright.stages.fit.loop.batches import Batch, Prepare
from reelwright.stages.fit.loop.finite import MAX_SKIPPED, refuse
from reelwright.stages.fit.loop.progress import Clock, Progress, TrainerSettings
from reelwright.stages.fit.optim.build import Schedule, set_rates
from reelwright.stages.fit.processes.world import World
from reelwright.stages.objectives.contract import Objective, batch_loss
from reelwright.storage.errors import StageError

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rate and weight decay over the updates."""

    lr: Schedule
    decay: Schedule | None = None  # None: constant


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What an update was like, over all processes."""

    loss: float
    parts: Mapping[str, float]  # by what logs call them: of the loss, where the objective names some, and measures
    weight: float  # what the loss counts for beside other updates
    norm: float  # of the gradients before clipping; 0 where fp16 overflowed
    is_stepped: bool
    is_stopping: bool  # some process was asked to stop


@dataclass(frozen=True)
class Step:
    """An update that was made, or on a GPU given to it; there it is taken for granted that it was finite.

    `result` waits for what it was like, and raises StageError where it was not finite. It is to be asked before weights
    are kept or looked at, and on a GPU not before the next update is given, so that the GPU never waits.
    """

    is_stepped: bool
    result: Callable[[], StepResult]


class TrainStep(nn.Module):
    """Model and objective as one forward pass, all views of a batch in it: what DDP wraps.

    So DDP knows which parameters the loss depends on, whatever else the model gives.
    """

    def __init__(self, model: VideoModel, objective: Objective, *, dtype: torch.dtype, is_shared: bool) -> None:
        """``dtype`` of the model's forward pass; ``is_shared``: this process has a part of each batch only."""
        super().__init__()
        self.model, self.objective, self.dtype, self.is_shared = model, objective, dtype, is_shared
        self.device_type = next(model.parameters()).device.type

    def forward(self, inputs: Inputs, targets: Tensor, *, is_counted: bool) -> dict[str, Tensor]:
        """The loss (""), its parts (`loss_NAME`) and what is measured beside it."""
        batch = {**inputs, "targets": targets}
        outputs = self.outputs(self.objective.model_inputs(inputs))
        with self._autocast():
            outputs |= self.objective.target_outputs(batch)
        found = batch_loss(self.objective, outputs, batch, is_shared=self.is_shared, is_counted=is_counted)
        return {"": found.total, **{f"loss_{name}": part for name, part in found.parts.items()}, **found.measures}

    def outputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """What the model gives under the settings' precision."""
        with self._autocast():
            outputs: dict[str, Tensor] = self.model(inputs)
        return outputs

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        cast: AbstractContextManager[Any] = torch.autocast(self.device_type, dtype=self.dtype)
        return cast


class Updater:
    """Makes the updates of ``module``, alone or with the other processes of ``world``."""

    def __init__(
        self,
        module: VideoModel,
        *,
        optimizer: torch.optim.Optimizer,
        rates: Rates,
        objective: Objective,
        settings: TrainerSettings,
        world: World,
        prepare: Prepare | None = None,
    ) -> None:
        self.module, self.optimizer, self.rates, self.settings, self.world = module, optimizer, rates, settings, world
        if any(parameter.requires_grad for parameter in objective.parameters()):
            raise StageError(
                f"objective {type(objective).__name__} has parameters, which no optimizer trains. Give them to the "
                "model, or make them buffers."
            )
        self.device = next(module.parameters()).device
        self.objective, self.prepare = objective.to(self.device), prepare
        self.parameters = list(module.parameters())
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.clock = Clock(self.device, is_on=settings.profile)
        self.upload, self._download = Upload(self.device), Download(self.device)
        self.is_late = self.device.type == "cuda" and not self.scaler.is_enabled()  # the scaler has to know at once
        self.step = TrainStep(module, objective, dtype=PRECISIONS[settings.precision], is_shared=world.size > 1)
        self.has_synced_norms = world.size > 1 and convert_batch_norms(self.step) > 0
        self.network: Any = _distributed(self.step, self.device, self.clock) if world.size > 1 else self.step

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """The module's outputs under the settings' precision."""
        return self.step.outputs(inputs)

    def update(self, group: Sequence[Batch], progress: Progress, *, is_stopping: bool) -> Step:
        """One weight update from a group of batches.

        Where it is not finite, raises StageError before any weight changes, or as `Step` says on a GPU.
        """
        factor = self.rates.lr(progress.update)
        decay = None if self.rates.decay is None else self.rates.decay(progress.update)
        set_rates(self.optimizer, factor, decay)
        self.objective.step, self.objective.epoch = progress.update, progress.epoch
        for parameter in self.parameters:
            parameter.grad = None
        with self.clock.part("data"):
            moved = [batch.to(self.upload) for batch in group]
            prepared = moved if self.prepare is None else [self.prepare(batch) for batch in moved]
        shares, weight = self._shares(prepared)
        losses: dict[str, Tensor] = {}  # of the update: "" the whole, others its parts by name
        for position, (batch, share) in enumerate(zip(prepared, shares, strict=True)):
            with self._sync(is_last=position == len(prepared) - 1):
                found = self._backward(batch, share)
            losses = {name: losses[name] + value if name in losses else value for name, value in found.items()}
        with self.clock.part("optimizer"):
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm or math.inf)
        agreed = self._agree(list(losses.values()), norm, weight, is_stopping=is_stopping)
        place = replace(progress) if self.is_late else progress

        def result() -> StepResult:
            (loss_value, *part_values), norm_value, weight_value, is_to_stop = agreed()
            is_stepped = self._check(loss_value, norm_value, group, place)
            return StepResult(
                loss=loss_value,
                parts=dict(zip(list(losses)[1:], part_values, strict=True)),
                weight=weight_value,
                norm=norm_value if is_stepped else 0.0,
                is_stepped=is_stepped,
                is_stopping=is_to_stop,
            )

        known = None if self.is_late else result()
        with self.clock.part("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        is_stepped = known is None or known.is_stepped
        if is_stepped:
            self.objective.after_step(self.module, progress.update + 1)
        return Step(is_stepped, result if known is None else lambda: known)

    def _shares(self, batches: Sequence[Batch]) -> tuple[list[float | Tensor], float | Tensor]:
        """The factor on the mean loss of each batch, and the weight of all together."""
        known = [self.objective.weight(batch.entries) for batch in batches]
        weights = [
            weight * float(batch.is_counted) for weight, batch in zip(known, batches, strict=True) if weight is not None
        ]
        if not weights:
            whole = sum(batch.num_items for batch in batches)
            return [self.world.size * batch.num_counted / whole for batch in batches], whole
        total = self.world.sum(torch.stack(weights).sum())
        divisor = total.clamp(min=torch.finfo(total.dtype).tiny)  # nothing known at all: every loss is 0
        return [self.world.size * weight / divisor for weight in weights], total

    def _backward(self, batch: Batch, share: float | Tensor) -> dict[str, Tensor]:
        """Add the gradients of one batch; returns what it adds to the loss of the update ("") and to its parts."""
        if self.has_synced_norms:
            count_batches(self.step, is_counted=batch.is_counted)
        with self.clock.part("forward"):
            losses: dict[str, Tensor] = self.network(batch.inputs, batch.targets, is_counted=batch.is_counted)
            if isinstance(share, Tensor) or share != 1.0:
                losses = {name: value * share for name, value in losses.items()}
        with self.clock.part("backward"):
            scaled: Any = self.scaler.scale(losses[""])  # torch types backward only in part
            scaled.backward()
        return {name: value.detach() for name, value in losses.items()}

    def _sync(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients travel with the last batch of an update only."""
        if self.world.size > 1 and not is_last:
            held: AbstractContextManager[Any] = self.network.no_sync()
            return held
        return contextlib.nullcontext()

    def _agree(
        self, losses: Sequence[Tensor], norm: Tensor, weight: float | Tensor, *, is_stopping: bool
    ) -> Callable[[], tuple[list[float], float, float, bool]]:
        """Losses, norm, weight and whether to stop, the same on all processes; asking is the one wait for the device.

        On a CPU they are there already.
        """
        if self.world.size == 1 and self.device.type == "cpu" and not self.is_late:
            numbers = [loss.item() for loss in losses], norm.item(), float(weight), is_stopping
            return lambda: numbers
        with self.clock.part("communication") if self.world.size > 1 else contextlib.nullcontext():
            stops = torch.full((), float(is_stopping), device=self.device)  # `torch.tensor` would wait for the device
            means = torch.stack([*(loss.float() / self.world.size for loss in losses), stops])
            own = [norm.double(), *([weight.double()] if isinstance(weight, Tensor) else [])]
            pending = self._download({"": torch.cat([self.world.sum(means).double(), torch.stack(own)])})

        def read() -> tuple[list[float], float, float, bool]:
            values = pending.result()[""].tolist()
            known = values.pop() if isinstance(weight, Tensor) else weight
            *found, stopping, norm_value = values
            return found, norm_value, known, stopping > 0

        return read

    def _check(self, loss: float, norm: float, batches: Sequence[Batch], progress: Progress) -> bool:
        """Whether the step will be made: fp16 overflows are left out by the scaler, within reason."""
        if math.isfinite(loss) and math.isfinite(norm):
            progress.num_skipped = 0
            return True
        is_overflow = self.scaler.is_enabled() and math.isfinite(loss)
        progress.num_skipped = progress.num_skipped + 1 if is_overflow else 0
        if not is_overflow or progress.num_skipped >= MAX_SKIPPED:
            refuse(self.module, batches, self.world, progress, loss=loss, norm=norm, is_late=self.is_late)
        return False


def _distributed(module: nn.Module, device: torch.device, clock: Clock) -> DistributedDataParallel:
    network = DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # the synced norms keep them equal
        find_unused_parameters=True,  # a model may leave some out, as an unused pooling token
    )
    if clock.is_on:
        network.register_comm_hook(clock, _timed_exchange)
    return network


def _timed_exchange(clock: Clock, bucket: Any) -> torch.futures.Future[Tensor]:
    """DDP's own exchange of gradients, with the time from its start to its end."""
    started = time.perf_counter()

    def note(done: torch.futures.Future[Tensor]) -> Tensor:
        clock.seconds["communication"] += time.perf_counter() - started
        return done.value()

    group: Any = torch.distributed.group.WORLD
    return default_hooks.allreduce_hook(group, bucket).then(note)
