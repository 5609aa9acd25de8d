"""What `make bench-gpu` checks of training: late reading, losses that are not finite, DDP over NCCL, recurrent models.

Each section yields the fields of a `gpu.Finding`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from reelwright.models.temporal.build import build_temporal
from reelwright.stages.base.devices import rounded_to_tf32
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.fit.loop.batches import Batch
from reelwright.stages.fit.loop.progress import Clock
from reelwright.stages.fit.loop.trainer import Rates, Trainer, TrainerSettings
from reelwright.stages.fit.loop.updates import TrainStep, _distributed
from reelwright.stages.fit.optim.build import build_optimizer, parameter_groups
from reelwright.stages.fit.optim.config import OptimizerSettings
from reelwright.stages.objectives.classification import Classification
from reelwright.storage.errors import StageError
from reelwright.storage.results.runs import RunFolder

LENGTH, DIM, CLASSES = 16, 64, 5


class _Windows:
    """Random windows; of the one numbered ``poisoned`` a row is NaN."""

    def __init__(self, number: int, *, batch_size: int, poisoned: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randn(number, LENGTH, DIM, generator=generator)
        self.targets = torch.randint(CLASSES, (number,), generator=generator)
        self.mask = torch.rand(number, LENGTH, generator=generator) > 0.2
        self.mask[:, 0] = True
        self.num_items, self.batch_size = number, batch_size
        if poisoned is not None:
            self.rows[poisoned, 0] = float("nan")

    @property
    def num_batches(self) -> int:
        return -(-self.num_items // self.batch_size)

    def epoch(self, epoch: int, *, first: int = 0) -> Iterator[Batch]:
        for start in range(first * self.batch_size, self.num_items, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield Batch({"rows": self.rows[part], "mask": self.mask[part]}, self.targets[part])


def _model(name: str = "gru", **options: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"input_dim": DIM, "num_outputs": CLASSES, "length": LENGTH, "per_row": False}
    return build_temporal(name, **sizes, width=32, dropout=0.0, **options)


def _trainer(setting: Any, name: str, *, is_late: bool, **settings: Any) -> Trainer:
    module, chosen = _model().to(setting.device), OptimizerSettings(lr=1e-3)
    trainer = Trainer(
        module,
        optimizer=build_optimizer(parameter_groups(module, chosen), chosen),
        rates=Rates(lr=lambda _update: 1.0),
        objective=Classification(nn.functional.cross_entropy),
        settings=TrainerSettings(key="k", epochs=2, metric="loss", **settings),
        folder=RunFolder(setting.folder / name),
        reporter=SilentReporter(),
    )
    trainer.updater.is_late = is_late
    return trainer


def recurrent(setting: Any) -> Iterator[dict[str, Any]]:
    """What a GPU computes without packing equals what the CPU packs."""
    data = _Windows(32, batch_size=32)
    for options in ({}, {"bidirectional": True}):
        model = _model(**options).eval()
        with torch.inference_mode(), rounded_to_tf32(setting.device, is_wanted=False):
            wanted = model({"rows": data.rows, "mask": data.mask})["logits"]
            model.to(setting.device)
            inputs = {"rows": data.rows.to(setting.device), "mask": data.mask.to(setting.device)}
            found = model(inputs)["logits"].cpu()
        differs = float((found - wanted).abs().max() / wanted.abs().max())
        what = f"logits of a GRU{' in both directions' if options else ''}"
        yield {"what": what, "value": differs, "unit": "of max", "is_right": differs <= 1e-4}


def late_reading(setting: Any) -> Iterator[dict[str, Any]]:
    """Weights, whether numbers are read at once or one update late, and the updates a second of both."""
    data = _Windows(64 if setting.is_tiny else 8192, batch_size=32)
    trainers = {is_late: _trainer(setting, f"late-{is_late}", is_late=is_late) for is_late in (False, True)}
    for is_late, trainer in trainers.items():
        setting.wait()
        started = time.perf_counter()
        trainer.fit(data)
        setting.wait()
        rate = 2 * data.num_batches / (time.perf_counter() - started)
        yield {"what": f"training, read {'late' if is_late else 'at once'}", "value": rate, "unit": "updates/s"}
    pairs = zip(*(trainer.module.state_dict().values() for trainer in trainers.values()), strict=True)
    differs = max(float((one - other).abs().max()) for one, other in pairs)
    allowed = 1e-2 if setting.device.type == "cuda" else 0.0  # kernels add up in another order each time
    is_right, note = differs <= allowed, f"at most {allowed:g}"
    yield {"what": "weights of the two", "value": differs, "unit": "differ", "is_right": is_right, "note": note}


def not_finite(setting: Any) -> Iterator[dict[str, Any]]:
    """A loss that is NaN, of the last update before weights are kept, ends the training; no file holds it."""
    trainer = _trainer(setting, "poisoned", is_late=True, checkpoint_every=1, keep_every=1)
    said, data = "nothing", _Windows(64, batch_size=8, poisoned=60)
    try:
        trainer.fit(data)
    except StageError as error:
        said = str(error)
    files = [
        value for path in (setting.folder / "poisoned").rglob("*.safetensors") for value in load_file(path).values()
    ]
    is_right = (
        "update 8 " in said and "inputs that are not finite" in said and all(bool(v.isfinite().all()) for v in files)
    )
    yield {
        "what": "a loss that is not finite is named",
        "value": float(is_right),
        "unit": "",
        "is_right": is_right,
        "note": said[:90],
    }


def distributed(setting: Any) -> Iterator[dict[str, Any]]:
    """Gradients of DDP in a group of one process, over NCCL on a GPU, beside those without it."""
    data = _Windows(32, batch_size=32)
    is_gpu = setting.device.type == "cuda"
    batch = Batch(
        {"rows": data.rows.to(setting.device), "mask": data.mask.to(setting.device)}, data.targets.to(setting.device)
    )
    gradients = []
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if is_gpu else "gloo",
        init_method=(setting.folder / "group").as_uri(), rank=0, world_size=1,
    )  # fmt: skip
    try:
        for is_wrapped in (False, True):
            model = _model().to(setting.device)
            objective = Classification(nn.functional.cross_entropy).to(setting.device)
            step: Any = TrainStep(model, objective, dtype=torch.float32, is_shared=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 renames an argument
                clock = Clock(setting.device, is_on=False)
                network = _distributed(step, setting.device, clock) if is_wrapped else step
            network(batch.inputs, batch.targets, is_counted=True)[""].backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        total = torch.ones(3, device=setting.device)
        dist.all_reduce(total)
    finally:
        dist.destroy_process_group()
    differs = max(float((one - other).abs().max()) for one, other in zip(*gradients, strict=True))
    is_right = differs <= 1e-4 and total.tolist() == [1.0] * 3
    what = f"gradients of DDP over {'NCCL' if is_gpu else 'gloo'}, one process"
    yield {"what": what, "value": differs, "unit": "differ", "is_right": is_right}
