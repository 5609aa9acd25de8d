"""Prediction over frames: windows/s of the predict stage, against running the encoder on every window.

Neighbouring windows share frames: 16 rows, hop 1, hold every frame up to 16 times, and ours reads, resizes and encodes
it once. One reference does for every window what is to be done for it, as pipelines of clips do: decode from the key
frame before it, resize, encode. The other has its frames decoded, resized and in memory, and only encodes. Both have
the same encoder in the same layout, precision and runtime, and the same temporal model, and take some windows spread
over the videos, as every window costs the same.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import decord
import numpy as np
import numpy.typing as npt
import torch

from reelwright.pipeline.project import Project
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows, window_rows
from reelwright.stages.decode.geometry import apply
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.encoding.preprocess import geometry_of
from reelwright.stages.embed.videos import prepare_forward
from reelwright.stages.predict.loaded_run import load_run
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store
from tests.benchmarks.bare import decord_images
from tests.benchmarks.bench_embed import ROWS_OF_A_LARGE_JOB
from tests.benchmarks.chain import fresh_work, make_project, timed_items
from tests.benchmarks.harness import Options, Row, Turns, usable_cores
from tests.benchmarks.videos import FPS, NUM_FRAMES, bench_videos

LENGTH, HOPS, SAMPLED_WINDOWS, AIM = 16, (1, 2, 4), 24, 0.95
REFERENCES = {"per window": "every window read and encoded", "per window in memory": "every window encoded"}
STAGES = f"""
  frames: {{uses: decode, materialize: false, stop: LAST}}
  embed: {{uses: embed, frames: frames, encoder: timm/mobilenetv2_100, weights: none}}
  train:
    uses: train
    embeddings: [embed]
    task: last_row
    window: {{length: {LENGTH}, hop: 4}}
    model: {{name: gru, width: 128}}
    epochs: 1
    val_splits: []
""" + "".join(f"  hop{hop}: {{uses: predict, run: train, frames: frames, window: {{hop: {hop}}}}}\n" for hop in HOPS)


def run(options: Options) -> list[Row]:
    """Rows of the table."""
    paths = bench_videos()[: options.num_videos]
    stages, num_frames = STAGES.replace("LAST", "1" if options.quick else "null"), FPS if options.quick else NUM_FRAMES
    project = make_project(options.folder / "predict", paths, stages)
    result = project.run(until=["train"])
    assert result.exit_code == 0, result
    every_window = EveryWindow(
        project, bench_videos()[0], length=LENGTH, num_windows=4 if options.quick else SAMPLED_WINDOWS
    )
    turns = Turns(options.repeats)
    turns.add("per window", every_window.rate)
    turns.add("per window in memory", partial(every_window.rate, in_memory=True))
    for hop in HOPS:
        turns.add(f"hop {hop}", partial(_stage_rate, project, f"hop{hop}"))
    found = turns.measure(warm_up=False)
    rows = []
    for case, name in REFERENCES.items():
        rows.append(Row(what=name, unit="windows/s", figures=found[case]))
        for hop in HOPS:
            against = {"figures": found[f"hop {hop}"], "reference": name, "against": found[case]}
            row = Row(what=f"predict over frames, hop {hop}", unit="windows/s", **against)
            factor = overlap_factor(num_frames, hop)
            share = statistics.median(row.ratios) / factor
            rows.append(replace(row, note=f"overlap factor {factor:.1f}, {share:.2f} of it, aim {AIM}"))
    return rows


def overlap_factor(num_rows: int, hop: int, *, length: int = LENGTH) -> float:
    """Rows in all windows over rows of the video: what encoding each once can save."""
    num_windows = len(grid_windows([num_rows], WindowShape(length=length, hop=hop)))
    return num_windows * length / num_rows


def _stage_rate(project: Project, node: str) -> float:
    windows, seconds = timed_items(fresh_work(project, node))
    return windows / seconds


class EveryWindow:
    """Encode the frames of one window, score it, go on to the next."""

    def __init__(self, project: Project, path: Path, *, length: int, num_windows: int) -> None:
        """The project has the nodes embed and hop1."""
        work = fresh_work(project, "embed")
        store = Store.at(work.store)
        loaded = encoder_of(work)
        how = {"tuning": store.root / "tuning", "note": lambda _text: None, "num_rows": ROWS_OF_A_LARGE_JOB}
        self._forward = prepare_forward(loaded, loaded.config, **how)
        run_key = fresh_work(project, "hop1").inputs["run"][0].key
        self._run = load_run(RunFolder(store.run(run_key)), device=self._forward.execution.device, plugins={})
        self._length = length
        self._path, self._geometry = path, geometry_of(loaded.data_config)
        self._frames = apply(decord_images(path), self._geometry)
        shape = WindowShape(length=length, hop=1)
        windows = grid_windows([len(self._frames)], shape)
        picked = windows.take(np.linspace(0, len(windows) - 1, num_windows).astype(int))
        self._rows, _ = window_rows(picked, shape)

    def rate(self, *, in_memory: bool = False) -> float:
        """Windows a second."""
        started = time.perf_counter()
        device = self._forward.execution.device
        mask = torch.ones(1, self._length, dtype=torch.bool, device=device)
        with torch.inference_mode():
            for rows in self._rows:
                frames = self._frames[rows] if in_memory else self._read(rows)
                parts = np.array_split(frames, self._forward.streams.num)
                encoded = [each.result()["pooled"] for each in [self._forward.submit(part) for part in parts]]
                values = torch.from_numpy(np.concatenate(encoded)).float().to(device)
                self._run.module({"rows": values[None], "mask": mask})["logits"].softmax(-1).cpu().numpy()
        return len(self._rows) / (time.perf_counter() - started)

    def _read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        video = decord.VideoReader(str(self._path), ctx=decord.cpu(0), num_threads=usable_cores())
        video.seek_accurate(int(rows[0]))
        return apply(np.stack([video.next().asnumpy() for _ in rows]), self._geometry)
