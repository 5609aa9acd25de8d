"""`make bench-gpu`: everything that a GPU does for us, checked against the CPU and measured, in under eight minutes.

python -m tests.benchmarks.gpu [--json FILE] [--must] [--device cpu --tiny]

Rows of every precision equal the CPU's; copies in streams bring the right bytes, and what they save; a GPU that is full
halves the batch; numbers that are read late train the same weights, and a loss that is not finite is kept nowhere; DDP
over NCCL with one process; torch.compile; decoding on the device; and whole embed stages over 15-second 1080p clips of
which 8 frames are taken. A table is printed, and all of it as JSON. Exit code 0: all checks hold, or there is no GPU
and nothing was done (one sentence says so; with --must that is 1); 1: some check failed. `--device cpu --tiny` runs the
same script without a GPU in some seconds: what it measures then means nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.base.devices import Download, Upload
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass
from tests.benchmarks.gpu_clips import clips, decoding
from tests.benchmarks.gpu_training import distributed, late_reading, not_finite, recurrent
from tests.benchmarks.harness import heading, machine

LIMIT_SECONDS = 440.0  # after which nothing more is begun
ALLOWED = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 6e-2, "fp16": 1e-2}  # of the largest value of an output


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how much."""

    device: torch.device
    is_tiny: bool
    folder: Path

    @property
    def encoders(self) -> tuple[str, ...]:
        """Random weights: nothing is loaded."""
        if self.is_tiny:
            return ("timm/test_resnet",)
        return ("timm/resnet50", "timm/mobilenetv2_100", "timm/vit_small_patch16_224")

    def forward(self, name: str, *, batch: int, on_cpu: bool = False, **how: Any) -> ForwardPass:
        """A forward pass of an encoder with weights of seed 0."""
        encoder = build_encoder(name, seed=0).eval()
        generator = torch.Generator().manual_seed(1)
        for module in encoder.modules():  # as they begin, many layers give nothing
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.0, generator=generator)
                module.running_mean.normal_(std=0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
        config = replace(encoder.data_config, size=(32, 32)) if self.is_tiny else encoder.data_config
        device = torch.device("cpu") if on_cpu else self.device
        made = Execution(device=device, dtype="float32", channels_last=True, batch_size=batch, **how)
        return ForwardPass(encoder, config, made)

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table: a number, and whether it is as it must be (None: it is only a measurement)."""

    what: str
    value: float
    unit: str
    is_right: bool | None = None
    note: str = ""


def rows_equal(setting: Setting) -> Iterator[Finding]:
    """The largest difference of rows to those of the CPU in fp32, over the largest value."""
    for name in setting.encoders:
        cpu = setting.forward(name, batch=8, on_cpu=True)
        frames = _frames(cpu, 20)
        wanted = _rows(cpu, frames)
        for precision, allowed in ALLOWED.items():
            found = _rows(setting.forward(name, batch=8, precision=precision), frames)
            differs = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            yield Finding(
                what=f"rows of {name} in {precision}",
                value=differs,
                unit="of max",
                is_right=differs <= allowed,
                note=f"at most {allowed:g}",
            )


def copies(setting: Setting) -> Iterator[Finding]:
    """Bytes that go to the device and come back beside kernels, and the time of batches with and without streams."""
    rng = np.random.default_rng(0)
    upload, download = Upload(setting.device), Download(setting.device)
    shape = (4, 16, 16, 3) if setting.is_tiny else (256, 224, 224, 3)
    busy = torch.randn(8 if setting.is_tiny else 2048, 8 if setting.is_tiny else 2048, device=setting.device)
    pending, sums = [], []
    for _ in range(12):
        host = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
        sums.append(host.to(torch.int64).sum(dim=(1, 2, 3)).numpy())
        there = upload(host.clone())
        busy = (busy @ busy).clamp(-1, 1)
        pending.append(download({"sums": there.to(torch.int64).sum(dim=(1, 2, 3))}))
        del there
    wrong = sum(not np.array_equal(each.result()["sums"], own) for each, own in zip(pending, sums, strict=True))
    yield Finding(what="batches that came back other than they went", value=wrong, unit="of 12", is_right=wrong == 0)
    forward = setting.forward(setting.encoders[0], batch=shape[0], precision="fp32" if setting.is_tiny else "bf16")
    batches = [_frames(forward, shape[0], seed=seed) for seed in range(3)]
    seconds = {
        "in streams": _seconds(setting, lambda: _in_flight(forward, batches)),
        "one after the other": _seconds(setting, lambda: [_simple(forward, frames) for frames in batches]),
    }
    for how, value in seconds.items():
        yield Finding(what=f"batches {how}", value=len(batches) * shape[0] / value, unit="frames/s")


def full_memory(setting: Setting) -> Iterator[Finding]:
    """A batch that does not fit is halved, and the rows are those of a batch that does."""
    name = setting.encoders[0]
    small = setting.forward(name, batch=4)
    frames = _frames(small, 64 if setting.is_tiny else 1024)
    wanted = _rows(small, frames[:64])
    notes: list[str] = []
    large = setting.forward(name, batch=len(frames))
    large._note = notes.append
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(setting.device).total_memory
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, (torch.cuda.memory_reserved(setting.device) + 3e9) / total), setting.device
        )
    else:  # the CPU's memory is not bounded: an encoder that has none above 16 rows
        large.call = _refusing(large.call, most=16)
    try:
        found = _rows(large, frames)
    finally:
        if setting.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, setting.device)
    differs = float(np.abs(found[:64] - wanted).max() / np.abs(wanted).max())
    is_right = len(found) == len(frames) and differs <= ALLOWED["fp32"] and large.batch_size < len(frames)
    note = f"from {len(frames)}; rows differ by {differs:.1e}; {len(notes)} halvings"
    yield Finding(
        what="batch that fits into little memory", value=large.batch_size, unit="rows", is_right=is_right, note=note
    )


def speeds(setting: Setting) -> Iterator[Finding]:
    """Frames a second of a forward pass over frames in memory, by precision, and compiled."""
    batch = 4 if setting.is_tiny else 256
    for name in setting.encoders:
        for how in ({"precision": "fp32"}, {"precision": "tf32"}, {"precision": "bf16"}, {"precision": "fp16"}):
            yield _speed(setting, name, batch, **how)
    if setting.is_tiny:
        yield Finding(what="torch.compile", value=math.nan, unit="frames/s", note="not tried here: it takes too long")
        return
    yield _speed(setting, setting.encoders[0], batch, precision="bf16", compile=True)
    counts = torch._dynamo.utils.counters["stats"]["unique_graphs"]  # type: ignore[attr-defined]
    yield Finding(
        what="graphs that were compiled", value=counts, unit="", is_right=counts == 1, note="static shapes: one"
    )


def _speed(setting: Setting, name: str, batch: int, **how: Any) -> Finding:
    forward = setting.forward(name, batch=batch, **how)
    frames = [_frames(forward, batch, seed=seed) for seed in range(2)] * (1 if setting.is_tiny else 6)
    seconds = _seconds(setting, lambda: _in_flight(forward, frames))
    what = f"forward {name} {' '.join('compiled' if value is True else str(value) for value in how.values())}"
    return Finding(what=what, value=len(frames) * batch / seconds, unit="frames/s")


def _frames(forward: ForwardPass, number: int, *, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, *forward._config.size, 3), dtype=np.uint8)


def _rows(forward: ForwardPass, frames: Any) -> Any:
    return forward.submit(frames).result()["pooled"]


def _in_flight(forward: ForwardPass, batches: list[Any]) -> None:
    for pending in [forward.submit(frames) for frames in batches]:
        pending.result()


def _simple(forward: ForwardPass, frames: Any) -> Any:
    """As one would write it."""
    device, dtype = forward.execution.device, torch.bfloat16
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype, enabled=forward.execution.precision == "bf16"),
    ):
        return forward.call(forward._normalise(torch.from_numpy(frames).to(device)))["pooled"].float().cpu().numpy()


def _refusing(call: Callable[..., Any], *, most: int) -> Callable[..., Any]:
    def refused(x: Any) -> Any:
        if len(x) > most:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return call(x)

    return refused


def _seconds(setting: Setting, run: Callable[[], Any]) -> float:
    """The best of three, after one that is not counted."""
    found = []
    for _ in range(2 if setting.is_tiny else 4):
        setting.wait()
        started = time.perf_counter()
        run()
        setting.wait()
        found.append(time.perf_counter() - started)
    return min(found[1:])


SECTIONS: dict[str, Callable[[Any], Iterator[Any]]] = {
    "rows": rows_equal,
    "copies": copies,
    "memory": full_memory,
    "recurrent": recurrent,
    "late": late_reading,
    "not finite": not_finite,
    "processes": distributed,
    "decoding": decoding,
    "clips": clips,
    "speeds": speeds,
}


def findings(setting: Setting) -> Iterator[tuple[str, Finding]]:
    """Of all sections that can be begun in time; one that breaks is a finding too."""
    started = time.perf_counter()
    for name, section in SECTIONS.items():
        if time.perf_counter() - started > LIMIT_SECONDS:
            yield name, Finding(what="not begun", value=math.nan, unit="", is_right=False, note="no time was left")
            continue
        begun = time.perf_counter()
        try:
            for found in section(setting):
                yield name, found if isinstance(found, Finding) else Finding(**found)
        except Exception as error:  # noqa: BLE001 - a section that breaks must not cost the others
            traceback.print_exc()
            note = f"{type(error).__name__}: {str(error)[:200]}"
            yield name, Finding(what="broke off", value=math.nan, unit="", is_right=False, note=note)
        yield name, Finding(what=f"the section {name} took", value=time.perf_counter() - begun, unit="s")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    given = _arguments(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("bench-gpu: torch finds no GPU on this machine; nothing was checked, nothing was measured.")
        return int(given.must)
    torch.manual_seed(0)
    print("\n".join(heading()), flush=True)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="reelwright-gpu-") as folder:
        device = torch.device("cuda", 0) if given.device == "cuda" else torch.device("cpu")
        for section, one in findings(Setting(device=device, is_tiny=given.tiny, folder=Path(folder))):
            mark = {None: "    ", True: "ok  ", False: "FAIL"}[one.is_right]
            print(
                f"{mark} {section:<11} {one.what:<58} {one.value:>12.5g} {one.unit:<9} {one.note}".rstrip(), flush=True
            )
            found.append({"section": section, **asdict(one)})
    failed = [one for one in found if one["is_right"] is False]
    checked = sum(one["is_right"] is not None for one in found)
    print(f"{checked - len(failed)} of {checked} checks hold")
    if given.json is not None:
        text = json.dumps({"machine": machine(), "findings": found}, indent=2, default=float)
        given.json.write_text(text.replace("NaN", "null"), encoding="utf-8")
    return int(bool(failed))


def _arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to see that the script runs")
    parser.add_argument("--tiny", action="store_true", help="little input: what is measured means nothing")
    parser.add_argument("--must", action="store_true", help="exit code 1 where there is no GPU")
    parser.add_argument("--json", type=Path, help="write everything there too")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
