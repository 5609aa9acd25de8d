"""Embedding: frames/s of the whole embed stage, against its bound and against the loop that a user would write.

Ours is the stage's own work function on a fresh key: building the encoder, its digest, starting the decoding
processes, geometry, forward passes, writing and committing included; layout, batch size and runtimes were measured once
before. The bound is what cannot be avoided: bare decoding and bare forward passes of the best runtime over tensors that
are ready (layout and batch as measured), one after the other on a CPU, whose cores they share; on a GPU the slower of
the two. Rows of eager beside it say what the runtime gains.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from reelwright.pipeline.project import Project
from reelwright.stages.base.devices import pick_device
from reelwright.stages.embed.encoding.encoder import load_encoder
from reelwright.stages.embed.encoding.forward import ForwardPass, autocast
from reelwright.stages.embed.videos import prepare_forward
from reelwright.storage.store import Store
from tests.benchmarks.bare import decode_rate
from tests.benchmarks.chain import fresh_work, make_project, timed_items
from tests.benchmarks.harness import Figures, Options, Row, Turns, usable_cores
from tests.benchmarks.videos import bench_videos

ENCODER = "mobilenetv2_100"
AIM = 0.9
SIMPLE_BATCH = 32
FORWARD_FRAMES = 320  # of a round of bare forward passes
ROWS_OF_A_LARGE_JOB = 1e6
PRECISIONS = ("fp32", "bf16")
STAGES = f"""
  streamed: {{uses: decode, materialize: false, stop: LAST}}
  stored: {{uses: decode, short_side: 256, codec: jpeg, stop: LAST}}
  eager: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none, runtime: eager}}
  fp32: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none}}
  bf16: {{uses: embed, frames: streamed, encoder: timm/{ENCODER}, weights: none, precision: bf16}}
  from_store_fp32: {{uses: embed, frames: stored, encoder: timm/{ENCODER}, weights: none}}
  from_store_bf16: {{uses: embed, frames: stored, encoder: timm/{ENCODER}, weights: none, precision: bf16}}
"""


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    paths = bench_videos()[: options.num_videos]
    project = make_project(options.folder / "embed", paths, STAGES.replace("LAST", "1" if options.quick else "null"))
    project.run(only=["stored"])
    precisions = [name for name in PRECISIONS if name != "bf16" or _has_bfloat16()]
    bare = {
        precision: _Bare(project, precision, num_frames=32 if options.quick else FORWARD_FRAMES)
        for precision in precisions
    }
    eager = _Bare(project, "eager", num_frames=32 if options.quick else FORWARD_FRAMES)
    turns = Turns(options.repeats)
    turns.add("forward eager", eager.rate)
    turns.add("eager", partial(_stage_rate, project, "eager"))
    turns.add("decode", partial(decode_rate, paths, backend="decord", threads=usable_cores()))
    for precision in precisions:
        turns.add(f"forward {precision}", bare[precision].rate)
        turns.add(precision, partial(_stage_rate, project, precision))
        turns.add(f"from_store_{precision}", partial(_stage_rate, project, f"from_store_{precision}"))
    simple = _SimpleLoop()
    turns.add("simple", partial(simple.rate, paths[:1]))
    found = turns.measure(warm_up=False)  # each case has its own, and the simple loop takes long
    rows = [
        Row(what="bare decode (decord)", unit="frames/s", figures=found["decode"]),
        Row(what="bare forward fp32, eager", unit="frames/s", figures=found["forward eager"], note=eager.settings),
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
        rows += _precision_rows(precision, found, settings=bare[precision].settings)
    what = f"simple loop fp32 (batch {SIMPLE_BATCH})"
    rows.append(Row(what=what, unit="frames/s", figures=found["simple"]))
    ours = found["fp32"]
    rows.append(Row(what="embed fp32", unit="frames/s", figures=ours, reference="simple loop", against=found["simple"]))
    return rows


def _has_bfloat16() -> bool:
    """Without AVX-512 a CPU computes bfloat16 many times slower than float32: nobody would use it."""
    if pick_device("auto").type != "cpu" or platform.machine() != "x86_64":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _precision_rows(precision: str, found: dict[str, Figures], *, settings: str) -> list[Row]:
    forward = found[f"forward {precision}"]
    bound = _bound(found["decode"], forward)
    rows = [
        Row(what=f"bare forward {precision}", unit="frames/s", figures=forward, note=settings),
        Row(what=f"bound {precision}", unit="frames/s", figures=bound),
    ]
    for what, case in ((f"embed {precision}", precision), (f"embed {precision}, stored", f"from_store_{precision}")):
        rows.append(Row(what=what, unit="frames/s", figures=found[case], reference="bound", against=bound, aim=AIM))
    return rows


def _bound(decode: Figures, forward: Figures) -> Figures:
    """What cannot be passed: the slower on a GPU; on a CPU, one after the other."""
    pairs = list(zip(decode.values, forward.values, strict=True))
    if pick_device("auto").type != "cpu":
        return Figures(tuple(min(pair) for pair in pairs), decode.cores)
    values = tuple(1 / (1 / first + 1 / second) for first, second in pairs)
    both = zip(pairs, zip(decode.cores, forward.cores, strict=True), values, strict=True)
    cores = tuple(value * (c[0] / pair[0] + c[1] / pair[1]) for pair, c, value in both)
    return Figures(values, cores)


def _stage_rate(project: Project, node: str) -> float:
    frames, seconds = timed_items(fresh_work(project, node))
    return frames / seconds


class _Bare:
    """The encoder alone, in the layout and batch that our own measuring chose (it is remembered from here on)."""

    def __init__(self, project: Project, precision: str, *, num_frames: int) -> None:
        work = fresh_work(project, precision)
        loaded = load_encoder(work)
        self._forward: ForwardPass = prepare_forward(
            loaded,
            loaded.config,
            tuning=Store.at(work.store).root / "tuning",
            note=lambda _text: None,
            num_rows=0 if num_frames < FORWARD_FRAMES else ROWS_OF_A_LARGE_JOB,  # all runtimes are measured then
        )
        chosen = self._forward.execution
        self.settings = f"{self._forward.runtime}, channels_last={chosen.channels_last}, batch {chosen.batch_size}"
        self._x = self._forward.sample()
        self._batches = 1 + num_frames // chosen.batch_size

    def rate(self) -> float:
        """Frames a second, after one batch that is not counted."""
        device, precision = self._forward.execution.device, self._forward.execution.precision
        with torch.inference_mode(), autocast(device, precision):
            self._forward.call(self._x)
            _wait(device)
            started = time.perf_counter()
            for _ in range(self._batches):
                self._forward.call(self._x)
            _wait(device)
        return self._batches * len(self._x) / (time.perf_counter() - started)


class _SimpleLoop:
    """decord's get_batch, timm's own transform frame by frame, batches of 32: written in ten minutes."""

    def __init__(self) -> None:
        import timm

        self._device = pick_device("auto")
        self._model = timm.create_model(ENCODER, pretrained=False, num_classes=0).eval().to(self._device)
        config = timm.data.resolve_model_data_config(self._model)
        self._transform = timm.data.create_transform(**config, is_training=False)

    def rate(self, paths: Sequence[Path]) -> float:
        """Frames a second over ``paths``; every video costs the same."""
        import decord
        from PIL import Image

        started, frames = time.perf_counter(), 0
        with torch.no_grad():
            for path in paths:
                video = decord.VideoReader(str(path))
                for start in range(0, len(video), SIMPLE_BATCH):
                    images = video.get_batch(range(start, min(start + SIMPLE_BATCH, len(video)))).asnumpy()
                    batch = torch.stack([self._transform(Image.fromarray(image)) for image in images])
                    frames += len(self._model(batch.to(self._device)).cpu().numpy())
        return frames / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
