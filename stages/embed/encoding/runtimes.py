"""Runtimes of an encoder on a CPU: what computes its forward pass, chosen by measuring once and remembered.

    eager      torch as it is
    folded     traced and frozen: batch norms folded into convolutions, weights in the blocked layout of oneDNN
    onnx       ONNX Runtime; needs the extra `onnx`

(inductor with frozen weights was slower than both where it was measured, and takes twenty times as long to build.)
A runtime is used only where its rows equal those of eager to TOLERANCE of the largest value of an output, which is
checked whenever one is built, and chosen only where what it saves of the job is more than building it takes. All but
eager see batches of one size: a smaller one is filled up.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reelwright.models.encoders.base import DataConfig, Encoder
from reelwright.stages.embed.encoding.streams import OnItsWay, Streams
from reelwright.storage.digests import digest, readable
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import write_json

EAGER = "eager"
TOLERANCE = 1e-4  # of the largest absolute value of an output, fp32
RUNTIMES = ("folded", "onnx")  # in the order in which they are tried
TRY_SECONDS, TRY_BATCHES = 1.0, 12  # about what building and timing one takes: so long, and the time of so many batches
PAYS = 3  # a runtime is tried where the job takes so many times as long
LEAST_BATCHES = 20  # below, nothing is timed
ROUNDS = 3
_ERRORS = (  # of building and trying one: of libraries too, that are there and cannot be imported
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, OSError, ImportError,
    torch.jit.Error,
)  # fmt: skip

Call = Callable[[Tensor], tuple[Tensor, ...]]


class RuntimeRefused(Exception):  # noqa: N818 - said of a runtime, and no error of the user's
    """A runtime cannot be built here, or gives other rows than eager."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """One that was built and checked for batches of the size that it was built with."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]  # of a row of each output
    call: Call
    seconds: float  # that building took, the check included
    versions: Mapping[str, str]  # of libraries that only this one uses
    wants_plain_layout: bool = False  # channels first, whatever layout is the encoder's

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """As the encoder."""
        return dict(zip(self.shapes, self.call(x), strict=True))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is remembered of a runtime."""

    speedup: float = 0.0  # over eager, in the same minute
    seconds: float = 0.0  # to build
    refused: str = ""  # why it is not used; empty: it may be
    eager_seconds: float = 0.0  # of a batch, in the same minute; 0: not known


class _Outputs(nn.Module):
    """An encoder that gives its outputs as a tuple, as tracing wants them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = self.encoder(x)
        return tuple(found[name] for name in self.encoder.outputs)


def sample_frames(encoder: Encoder, config: DataConfig, *, batch_size: int) -> npt.NDArray[np.uint8]:
    """Made-up frames (B,H,W,3) or clips (B,T,H,W,3): blocks of colour with noise on them, each another."""
    rng = np.random.default_rng(0)
    clip = (config.clip_length,) if encoder.kind == "video" else ()
    height, width = config.size
    blocks = rng.integers(0, 200, (batch_size, *clip, height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    blocks = blocks.repeat(16, axis=-3).repeat(16, axis=-2)[..., :height, :width, :]
    found: npt.NDArray[np.uint8] = blocks + rng.integers(0, 56, blocks.shape, dtype=np.uint8)
    return found


def missing(name: str) -> str:
    """What the runtime ``name`` lacks on this machine; "" where it can be tried."""
    if name == "onnx" and not all(map(find_spec, ("onnx", "onnxruntime"))):
        return "onnxruntime is not installed; pip install 'reelwright[onnx]'"
    return ""


def build(name: str, encoder: Encoder, x: Tensor, streams: Streams) -> Runtime:
    """The runtime ``name`` of ``encoder`` (in eval mode, on the CPU, fp32) for batches like the normalised ``x``.

    It is checked in ``streams`` at once, as it will be used.

    Raises RuntimeRefused where it cannot be had here, or its rows are not those of eager.
    """
    started = time.perf_counter()
    if why := missing(name):
        raise RuntimeRefused(why)
    model = _Outputs(encoder).eval()
    seen = (x, x.flip(0) * -0.5)  # also another batch: what a network does with one may hang on its values
    wanted = [each.result() for each in [streams.start(partial(model, each)) for each in seen]]
    try:
        call, versions = _BUILDERS[name](model, x, streams)
        found = [streams.start(partial(call, each)) for each in seen]
        differs = max(difference(each.result(), rows) for each, rows in zip(found, wanted, strict=True))
    except _ERRORS as error:
        raise RuntimeRefused(f"it cannot be built: {_short(error)}") from error
    if differs > TOLERANCE:
        raise RuntimeRefused(f"its rows differ from eager's by {differs:.1e} of their largest value")
    seconds = time.perf_counter() - started
    shapes = {each: tuple(rows.shape[1:]) for each, rows in zip(encoder.outputs, wanted[0], strict=True)}
    is_plain = name == "onnx"
    return Runtime(name=name, shapes=shapes, call=call, seconds=seconds, versions=versions, wants_plain_layout=is_plain)


def difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest difference of any output over that output's largest absolute value; infinite where one is NaN."""
    largest = 0.0
    for ours, theirs in zip(found, wanted, strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        share = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))
        largest = max(largest, share if share == share else float("inf"))  # noqa: PLR0124 - NaN
    return largest


def fastest(
    encoder: Encoder, x: Tensor, *, num_rows: float, path: Path, note: Callable[[str], None], streams: Streams
) -> Runtime | None:
    """What does a job of ``num_rows`` soonest, building included; None: eager.

    ``path`` is the file where speeds on this machine are remembered; what is not, and would pay, is measured now.
    """
    num_batches = num_rows / len(x)
    if num_batches < LEAST_BATCHES:
        return None
    known, tried = remembered(path), False
    before = [entry.eager_seconds for entry in known.values() if entry.eager_seconds]
    of_eager = partial(streams.start, partial(_Outputs(encoder).eval(), x))
    a_batch = min(before or (streams.seconds(of_eager) for _ in range(2)))
    built: dict[str, Runtime] = {}
    best, least = EAGER, num_batches * a_batch
    for name in RUNTIMES:
        if missing(name) or (name not in known and least < PAYS * (TRY_SECONDS + TRY_BATCHES * a_batch)):
            continue
        if name not in known:
            tried = True
            try:
                built[name] = build(name, encoder, x, streams)
                known[name] = _measured(built[name], x, streams, of_eager)
            except RuntimeRefused as refused:
                known[name] = Measured(refused=str(refused))
        of = known[name]
        seconds = of.seconds + num_batches * a_batch / of.speedup if not of.refused else float("inf")
        if seconds < least:
            best, least = name, seconds
    if tried:
        write_json(path, {name: asdict(entry) for name, entry in known.items()})
        texts = (
            f"{name} refused ({entry.refused})" if entry.refused else f"{name} {entry.speedup:.2f} times eager"
            for name, entry in known.items()
        )
        note(f"runtimes measured: {', '.join(texts)}")
    if best == EAGER:
        return None
    try:
        return built[best] if best in built else build(best, encoder, x, streams)
    except RuntimeRefused as refused:
        note(f"runtime {best} was faster here before and is not used now: {refused}")
        return None


def remembered(path: Path) -> dict[str, Measured]:
    """What is known of runtimes here; nothing where the file is not there, or damaged: it is only a cache."""
    try:
        with readable(path):
            found = json.loads(path.read_text(encoding="utf-8"))
            return {name: Measured(**values) for name, values in found.items() if name in RUNTIMES}
    except (FileNotFoundError, StoreError):
        return {}


def memory_of(folder: Path, encoder: Encoder, config: DataConfig, x: Tensor, *, name: str, streams: Streams) -> Path:
    """The file for this encoder, batch, machine and versions."""
    libraries = {each: version(each) for each in ("torch", "onnxruntime") if find_spec(each)}
    sizes = [list(encoder.outputs), list(config.size), config.clip_length, len(x)]
    facts = [name, sizes, libraries, cpu_name(), streams.num, streams.threads]
    readable_name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)
    return folder / f"runtimes-{readable_name}-{digest(facts)[:12]}.json"


@cache
def cpu_name() -> str:
    """Model and instruction set of the processor."""
    lines = []
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
    model = lines[0].partition(":")[2].strip() if lines else platform.processor() or platform.machine()
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


def of_name(name: str, encoder: Encoder, x: Tensor, *, where: str, streams: Streams) -> Runtime:
    """The runtime that a setting names. Raises ConfigError where it cannot be used."""
    try:
        return build(name, encoder, x, streams)
    except RuntimeRefused as refused:
        raise ConfigError(
            f"{where}: runtime: {name} cannot be used: {refused}. Set runtime: auto, or eager"
        ) from refused


def _measured(runtime: Runtime, x: Tensor, streams: Streams, of_eager: Callable[[], OnItsWay]) -> Measured:
    """Time a runtime in turns with eager, which ``of_eager`` starts a pass of."""
    of_runtime = partial(streams.start, partial(runtime.call, x))
    streams.seconds(of_runtime)  # the first passes of a traced model still optimise it
    pairs = [(streams.seconds(of_eager), streams.seconds(of_runtime)) for _ in range(ROUNDS)]
    return Measured(
        speedup=round(statistics.median(slow / fast for slow, fast in pairs), 3),
        seconds=round(runtime.seconds, 1),
        eager_seconds=round(min(slow for slow, _ in pairs), 4),
    )


def _short(error: Exception) -> str:
    """The first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"


def _folded(model: nn.Module, x: Tensor, _streams: Streams) -> tuple[Call, dict[str, str]]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing warns of every shape
        traced = torch.jit.trace(model, x, check_trace=False)  # type: ignore[no-untyped-call]
        frozen: Call = torch.jit.optimize_for_inference(torch.jit.freeze(traced.eval()))
        for _ in range(2):  # the passes in which it optimises itself
            frozen(x)
    return frozen, {}


def _onnx(model: nn.Module, x: Tensor, streams: Streams) -> tuple[Call, dict[str, str]]:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as library

    # They share no base but Exception.
    errors = tuple(each for each in vars(library).values() if isinstance(each, type) and issubclass(each, Exception))
    options = onnxruntime.SessionOptions()
    # a pool that all passes share, beside the thread of each
    options.intra_op_num_threads, options.inter_op_num_threads = streams.num * (streams.threads - 1) + 1, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # decoding shares the cores
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = f"{folder}/model.onnx"
        # The exporter that traces: a second, where the one that is the default takes a quarter of a minute.
        torch.onnx.export(model, (x.contiguous(),), path, dynamo=False, input_names=["x"])
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except errors as error:
            raise RuntimeError(str(error)) from error

    def call(x: Tensor) -> tuple[Tensor, ...]:
        try:
            return tuple(torch.from_numpy(rows) for rows in session.run(None, {"x": x.contiguous().numpy()}))
        except errors as error:
            raise RuntimeError(str(error)) from error

    return call, {"onnxruntime": version("onnxruntime")}


_BUILDERS: dict[str, Callable[[nn.Module, Tensor, Streams], tuple[Call, dict[str, str]]]] = {
    "folded": _folded,
    "onnx": _onnx,
}
