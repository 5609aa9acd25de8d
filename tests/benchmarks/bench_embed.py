"""Embedding: frames/s of the whole embed stage, against its bound and against the loops that others write.

Ours is the stage's own work function on a fresh key: building the encoder, its digest, starting the decoding
processes, geometry, forward passes, writing and committing included; layout, batch size and runtimes were measured once
before. The six videos are a job of seconds, of which building encoder and runtime is a part that longer jobs do not
notice: rows "once it runs" are those of the same job from the end of its first video on.

The bound is what cannot be avoided: bare decoding and bare forward passes of the best runtime over tensors that are
ready (layout and batch as measured), one after the other on a CPU, whose cores they share; on a GPU the slower of the
two. A video encoder's rows are clips, 8 frames apart, whose frames are decoded once. Rows of eager beside it say what
the runtime gains, those of `resize_with: torch` what a faster resize does.
"""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial

import torch

from reelwright.pipeline.project import Project
from reelwright.stages.base.devices import pick_device
from reelwright.stages.base.work import SilentReporter
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.forward import ForwardPass, autocast
from reelwright.stages.embed.videos import clip_of, prepare_forward
from reelwright.stages.embed.work import run_items
from reelwright.storage.ledger.items import ItemRow
from reelwright.storage.store import Store
from tests.benchmarks.bare import decode_rate
from tests.benchmarks.chain import fresh_work, make_project
from tests.benchmarks.frame_loops import SIMPLE_BATCH, FrameLoop, reads_with
from tests.benchmarks.harness import Figures, Options, Row, Turns, usable_cores
from tests.benchmarks.videos import bench_videos

ENCODER = "mobilenetv2_100"
OTHERS = {  # measured beside it, against their bounds only
    "resnet18": "timm/resnet18",
    "vit_small": "timm/vit_small_patch16_224",
    "r2plus1d_18": "torchvision/r2plus1d_18",
}
AIM = 0.95
AIM_OF_PEER = 3.0
PEER_BATCHES = (1, 8)  # video_features' own default, and one that suits a CPU
FORWARD_FRAMES = 320  # of a round of bare forward passes; of others than ENCODER a quarter
ROWS_OF_A_LARGE_JOB = 1e6
PRECISIONS = ("fp32", "bf16")
TORCH = "preprocess: {resize_with: torch}"
STAGES = f"""
  streamed: {{uses: decode, materialize: false, stop: LAST}}
  stored: {{uses: decode, short_side: 256, codec: jpeg, stop: LAST}}
  eager: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none, runtime: eager}}
  fp32: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none}}
  fp32_torch: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none, {TORCH}}}
  bf16: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none, precision: bf16}}
  from_store_fp32: {{uses: embed, frames: stored, encoder: timm/{ENCODER}, weights: none}}
  from_store_bf16: {{uses: embed, frames: stored, encoder: timm/{ENCODER}, weights: none, precision: bf16}}
""" + "".join(
    f"  {name}: {{uses: embed, frames: streamed, encoder: {encoder}, weights: none}}\n"
    f"  {name}_torch: {{uses: embed, frames: streamed, encoder: {encoder}, weights: none, {TORCH}}}\n"
    for name, encoder in OTHERS.items()
)


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    paths = bench_videos()[: options.num_videos]
    project = make_project(options.folder / "embed", paths, STAGES.replace("LAST", "1" if options.quick else "null"))
    project.run(only=["stored"])
    precisions = [name for name in PRECISIONS if name != "bf16" or _has_bfloat16()]
    num_frames = 32 if options.quick else FORWARD_FRAMES
    bare = {name: _Bare(project, name, num_frames=num_frames) for name in ("eager", *precisions)}
    bare |= {name: _Bare(project, name, num_frames=num_frames, share=0.25) for name in OTHERS}
    turns, running = Turns(options.repeats), defaultdict[str, list[float]](list)
    for name, alone in bare.items():
        turns.add(f"forward {name}", alone.rate)
    turns.add("decode", partial(decode_rate, paths, backend="decord", threads=usable_cores()))
    stored = [f"from_store_{precision}" for precision in precisions]
    both_ways = [name for each in ("fp32", *OTHERS) for name in (each, f"{each}_torch")]
    for node in ("eager", *both_ways, *precisions[1:], *stored):
        turns.add(node, partial(_stage_rate, project, node, running))
    loop = FrameLoop(ENCODER)
    turns.add("simple", partial(loop.simple, paths[:1]))
    for size in PEER_BATCHES:
        turns.add(f"peer {size}", partial(loop.as_video_features, paths[:1], batch_size=size))
    found = turns.measure(warm_up=False)  # each case has its own, and the loops take long
    rows = [
        Row(what="bare decode (decord)", unit="frames/s", figures=found["decode"]),
        Row(
            what="bare forward fp32, eager",
            unit="frames/s",
            figures=found["forward eager"],
            note=bare["eager"].settings,
        ),
        Row(what="embed fp32, runtime: eager", unit="frames/s", figures=found["eager"]),
        Row(
            what="embed fp32",
            unit="frames/s",
            figures=found["fp32"],
            reference="embed fp32, runtime: eager",
            against=found["eager"],
        ),
    ]
    for precision in precisions:
        nodes = [precision, *(["fp32_torch"] if precision == "fp32" else []), f"from_store_{precision}"]
        rows += _against_bound(precision, nodes, found, bare[precision], running)
    for name in OTHERS:
        rows += _against_bound(name, [name, f"{name}_torch"], found, bare[name], running)
    loops = {f"simple loop, batch {SIMPLE_BATCH}": ("simple", None)}
    loops |= {
        f"video_features' loop ({reads_with()}), batch {size}": (f"peer {size}", AIM_OF_PEER) for size in PEER_BATCHES
    }
    for what, (case, aim) in loops.items():
        rows.append(Row(what=what, unit="frames/s", figures=found[case]))
        for ours in ("fp32", "fp32_torch"):
            of = {"figures": found[ours], "reference": what.partition(",")[0], "against": found[case], "aim": aim}
            rows.append(Row(what=f"embed {ours}", unit="frames/s", **of))
    return rows


def _has_bfloat16() -> bool:
    """Without AVX-512 a CPU computes bfloat16 many times slower than float32: nobody would use it."""
    if pick_device("auto").type != "cpu" or platform.machine() != "x86_64":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _against_bound(
    name: str, nodes: list[str], found: dict[str, Figures], bare: _Bare, running: Mapping[str, list[float]]
) -> list[Row]:
    """Rows of nodes whose forward pass is that of ``name``: of the whole job, and of it once it runs."""
    forward, unit = found[f"forward {name}"], "frames/s" if bare.hop == 1 else "clips/s"
    bound = _bound(found["decode"], forward, hop=bare.hop)
    rows = [
        Row(what=f"bare forward {name}", unit=unit, figures=forward, note=bare.settings),
        Row(what=f"bound {name}", unit=unit, figures=bound),
    ]
    for node in nodes:
        steady = Figures(tuple(running[node]), found[node].cores)
        for what, figures in ((f"embed {node}", found[node]), (f"embed {node}, once it runs", steady)):
            rows.append(Row(what=what, unit=unit, figures=figures, reference="bound", against=bound, aim=AIM))
    return rows


def _bound(decode: Figures, forward: Figures, *, hop: int) -> Figures:
    """What cannot be passed: the slower on a GPU; on a CPU, one after the other; of rows that are ``hop`` frames."""
    pairs = [(frames / hop, rows) for frames, rows in zip(decode.values, forward.values, strict=True)]
    if pick_device("auto").type != "cpu":
        return Figures(tuple(min(pair) for pair in pairs), decode.cores)
    values = tuple(1 / (1 / first + 1 / second) for first, second in pairs)
    both = zip(pairs, zip(decode.cores, forward.cores, strict=True), values, strict=True)
    cores = tuple(value * (c[0] / pair[0] + c[1] / pair[1]) for pair, c, value in both)
    return Figures(values, cores)


def _stage_rate(project: Project, node: str, running: dict[str, list[float]]) -> float:
    """Rows a second of the whole job; of all videos but the first, from the end of that on, into ``running``."""
    work, reporter = fresh_work(project, node), _Ends()
    started = time.perf_counter()
    run_items(work, reporter)
    seconds = time.perf_counter() - started
    assert [row.status for row in reporter.rows] == ["ok"] * len(work.items), reporter.rows
    rows = [row.rows for row in reporter.rows]
    since = reporter.ends[0] if len(rows) > 1 else started
    running[node].append(sum(rows[1:] or rows) / (started + seconds - since))
    return sum(rows) / seconds


class _Ends(SilentReporter):
    """Keeps when each video ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def item(self, row: ItemRow) -> None:
        super().item(row)
        self.ends.append(time.perf_counter())


class _Bare:
    """The encoder alone, in the layout and batch that our own measuring chose (it is remembered from here on)."""

    def __init__(self, project: Project, node: str, *, num_frames: int, share: float = 1.0) -> None:
        work = fresh_work(project, node)
        loaded = encoder_of(work)
        self._forward: ForwardPass = prepare_forward(
            loaded,
            loaded.config,
            tuning=Store.at(work.store).root / "tuning",
            note=lambda _text: None,
            num_rows=0 if num_frames < FORWARD_FRAMES else ROWS_OF_A_LARGE_JOB,  # all runtimes are measured then
        )
        chosen = self._forward.execution
        streams = self._forward.streams
        self.settings = (
            f"{self._forward.runtime}, channels_last={chosen.channels_last}, batch {chosen.batch_size}, "
            f"{streams.num} x {streams.threads} threads"
        )
        self.hop = clip_of(loaded, where=node).hop  # frames from a row to the next
        x = self._forward.sample()
        self._x = x.contiguous() if self._forward.runtime == "onnx" else x
        self._batches = 1 + int(num_frames * share / self.hop) // chosen.batch_size

    def rate(self) -> float:
        """Frames a second, after one batch that is not counted."""
        streams, device = self._forward.streams, self._forward.execution.device
        for each in [streams.start(self._pass) for _ in range(streams.num)]:
            each.result()
        _wait(device)
        started = time.perf_counter()
        for each in [streams.start(self._pass) for _ in range(self._batches)]:
            each.result()
        _wait(device)
        return self._batches * len(self._x) / (time.perf_counter() - started)

    def _pass(self) -> None:
        with torch.inference_mode(), autocast(self._forward.execution.device, self._forward.execution.precision):
            self._forward.call(self._x)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
