"""What is said when loss or gradients are not finite: the step, the inputs, the largest gradients, what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch
from torch import nn

from reelwright.stages.base.devices import out_of_memory
from reelwright.stages.fit.loop.batches import Batch
from reelwright.stages.fit.loop.progress import Progress
from reelwright.stages.fit.processes.world import World
from reelwright.storage.errors import StageError

MAX_SKIPPED = 25  # updates in a row whose fp16 gradients overflow before we give up: 2**16 is halved to below 1
_LISTED = 5


@contextlib.contextmanager
def room_for(device: torch.device, batches: Sequence[Batch] = ()) -> Iterator[None]:
    """Raises StageError where the memory of ``device`` does not suffice for ``batches`` in the block; none: for val."""
    try:
        yield
    except RuntimeError as error:
        problem = out_of_memory(error)
        if not problem:
            raise
        what, advice = "evaluate on val", ", or take precision: bf16"
        if batches:
            what = f"learn from {sum(map(len, batches))} items in {len(batches)} batch(es)"
            advice = (
                ", with optimizer.accumulate for as many items each time, or take gradient_checkpointing: true, or "
                "precision: bf16"
            )
        raise StageError(
            f"memory of {device} does not suffice to {what} ({problem}); the last checkpoint is intact. Lower "
            f"batch_size{advice}."
        ) from error


def refuse(
    module: nn.Module,
    batches: Sequence[Batch],
    world: World,
    progress: Progress,
    *,
    loss: float,
    norm: float,
    is_late: bool = False,
) -> NoReturn:
    """Raise the StageError that tells all; called by every process, before any weight has changed.

    Where that was found out late, on a GPU, the update was made, and its gradients are gone.
    """
    inputs = [text for texts in world.gather(_bad_inputs(batches)) for text in texts]
    named = [text for batch in batches if batch.about is not None and batch.is_counted for text in batch.about()]
    items = [text for texts in world.gather(named) for text in texts]
    if inputs:
        looked_at = f"inputs that are not finite: {_some(inputs)}. Run embed again for these"
    elif items:
        looked_at = f"the inputs are finite: {_some(items)}. Lower optimizer.lr"
    else:
        looked_at = "Lower optimizer.lr"
    found = (
        "seen one update later, weights of neither are kept"
        if is_late
        else f"not finite: {_bad_gradients(module)}; largest gradients: {_largest(module)}"
    )
    raise StageError(
        f"update {progress.update + 1} (epoch {progress.epoch + 1}, batch {progress.batch + 1}) was "
        f"{'void' if is_late else 'not made'}: the loss is {loss:g}, the norm of the gradients {norm:g}; {found}; "
        f"{looked_at}, lengthen the warm-up, or use precision: fp32; the last "
        "checkpoint is intact."
    )


def _bad_gradients(module: nn.Module) -> str:
    named = [(name, parameter.grad) for name, parameter in module.named_parameters()]
    bad = [name for name, gradient in named if gradient is not None and not bool(gradient.isfinite().all())]
    return f"gradients of {', '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}" if bad else "the loss only"


def _largest(module: nn.Module) -> str:
    """The parameters whose gradients have the largest finite entries."""
    found = []
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            finite = torch.nan_to_num(parameter.grad.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
            found.append((float(finite.abs().max()), name))
    return ", ".join(f"{name} {value:.3g}" for value, name in sorted(found, reverse=True)[:_LISTED])


def _bad_inputs(batches: Sequence[Batch]) -> list[str]:
    """The items with NaN or infinity in an input."""
    found = []
    for batch in batches:
        bad = torch.zeros(len(batch), dtype=torch.bool)
        for value in batch.inputs.values():
            if value.is_floating_point() and len(value) == len(batch):
                bad |= ~value.detach().reshape(len(batch), -1).isfinite().all(dim=1).cpu()
        names = (
            batch.about()
            if batch.about is not None
            else [f"item {number} of the batch" for number in range(len(batch))]
        )
        found += [name for name, is_bad in zip(names, bad.tolist(), strict=True) if is_bad and batch.is_counted]
    return found


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_LISTED]) + (f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else "")
