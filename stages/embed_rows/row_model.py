"""The model of a run that makes rows of rows: loaded, tried, and fed with whole videos piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reelwright.models.contracts import VideoModel, mark_unpadded
from reelwright.models.systems.carl import FrameModel
from reelwright.stages.base.devices import out_of_memory, pick_device
from reelwright.stages.base.inputs import unchanged_run
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.datasets.sampling.two_views import context_frames
from reelwright.stages.datasets.stored_rows import StoredVideo, num_features, stored_shape
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.clip_models import sees_frames
from reelwright.stages.embed.encoding.forward import autocast
from reelwright.stages.embed.encoding.last_layers import POOLED
from reelwright.stages.embed.row_outputs import EMBEDDING, check_row_outputs, model_output
from reelwright.stages.embed_rows.pieces import Outputs, Piece, joined, pieces_of
from reelwright.stages.fit.run_models import load_run_model
from reelwright.stages.fit.trained_on import check_trained_on
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.errors import ConfigError, ItemError, StageError
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store

# What is seen at once where nothing else is said; in no key, so that other numbers are another version of the stage.
_MOST_ROWS = 4096  # attention takes time that grows with their square
_MOST_BYTES = 256 << 20
_MAP_AXES = 3  # C, H, W; of stored views the model sees the first


@dataclass(frozen=True, kw_only=True)
class RowModel:
    """A model in eval mode on its device, and what it makes of rows."""

    model: VideoModel
    name: str
    run: str  # name of the node
    weights_digest: str
    device: torch.device
    config: EmbedConfig
    output: str  # of the embeddings that it reads
    row: tuple[int, ...]  # shape of what it reads of a row: (D,), or a map as it is stored
    has_views: bool = False  # rows (V, D) are stored, of which it reads the first view
    contexts: tuple[int, int]  # rows that it sees of each, and how far they are apart
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of a row, by the stored name

    @property
    def length(self) -> int:
        """The most rows that are seen at once."""
        fitting = max(1, _MOST_BYTES // (4 * math.prod(self.row) * self.contexts[0]))
        return self.config.pieces.length or min(_MOST_ROWS, fitting)

    @property
    def overlap(self) -> int:
        """The fewest rows that two pieces share."""
        wanted = self.config.pieces.overlap
        return min(self.length // 4 if wanted is None else wanted, self.length // 2)

    def embed(self, video: StoredVideo, *, start: int = 0) -> Iterator[tuple[int, Outputs]]:
        """Rows of a video from ``start`` on, or a few before it: float32 (n, ...) by output, and where these begin.

        They do not depend on ``start``. Raises ItemError for rows that are not finite, ConfigError where the model
        does not take so many rows at once, StageError where memory does not suffice for them.
        """
        pieces = pieces_of(len(video), length=self.length, overlap=self.overlap)
        positions = self.model.video_positions(len(video))
        needed = (piece for piece in pieces if piece.end > start)
        parts = ((piece, self._of_piece(video, piece, positions)) for piece in needed)
        return joined(parts, of_length=frozenset([EMBEDDING]))

    def tried(self, length: int) -> RowModel:
        """With the shapes of its outputs, after it has seen so many rows of zeros."""
        zeros = np.zeros((length * self.contexts[0], *self.row), dtype=np.float32)
        outputs = self(zeros, positions=self.model.video_positions(length))
        return replace(self, shapes={name: rows.shape[1:] for name, rows in outputs.items()})

    def _of_piece(self, video: StoredVideo, piece: Piece, positions: Tensor | None) -> Outputs:
        num, stride = self.contexts
        first = max(0, piece.start - (num - 1) * stride)
        rows = self._read(video, first, piece.stop)
        places = context_frames(np.arange(piece.start, piece.stop), num=num, stride=stride).reshape(-1)
        own = None if positions is None else positions[piece.start : piece.stop]
        return self(rows if num == 1 else rows[places - first], positions=own)

    def _read(self, video: StoredVideo, start: int, stop: int) -> npt.NDArray[np.float32]:
        if len(self.row) == 1 and not self.has_views:
            return video.read(start, stop).astype(np.float32)
        stored = video.videos[0].output(self.output, start, stop)
        maps: npt.NDArray[np.float32] = (stored[:, 0] if self.has_views else stored).astype(np.float32)
        if not np.isfinite(maps).all():
            raise ItemError("not_finite", f"of rows {start} to {stop - 1} of its embeddings one holds NaN or infinity.")
        return maps

    def __call__(self, rows: npt.NDArray[np.float32], *, positions: Tensor | None) -> Outputs:
        """The outputs of rows that are seen together, contexts side by side."""
        num_steps = len(rows) // self.contexts[0]
        mask = torch.ones(1, num_steps, dtype=torch.bool, device=self.device)
        mask = mark_unpadded(mask) if mask.is_cuda else mask
        batch = {"rows": torch.from_numpy(rows)[None].to(self.device), "mask": mask}
        if positions is not None:
            batch["positions"] = positions[None].to(self.device)
        try:
            with torch.inference_mode(), autocast(self.device, self.config.precision):
                found = self.model(batch)
        except (ValueError, RuntimeError, IndexError) as error:
            if out_of_memory(error):
                raise StageError(
                    f"memory of {self.device} does not suffice for {num_steps} rows at once ({error}). Set "
                    "pieces.length"
                ) from error
            raise ConfigError(
                f"model {self.name} of run {self.run} does not take {num_steps} rows at once ({error}). Set "
                "pieces.length to the length that it was trained with"
            ) from error
        known = {name for name, value in found.items() if value.ndim > 2 and value.shape[:2] == (1, num_steps)}
        check_row_outputs(self.config.outputs, sorted(known), run=self.run)
        return {name: found[model_output(name)][0].float().cpu().numpy() for name in self.config.outputs}


def load_row_model(work: Work, config: EmbedConfig) -> RowModel:
    """The model of the run that ``work`` names, tried on zeros.

    Raises ConfigError where it makes no such rows, or not of the rows that ``work`` reads, StoreError where the run or
    the embeddings are not there.
    """
    store, (ref,), refs = Store.at(work.store), work.inputs["run"], work.inputs["embeddings"]
    folder = RunFolder(store.run(ref.key))
    values = folder.config()
    if "model" not in values:
        raise ConfigError(f"{work.node}: run {ref.node} has an encoder of frames and no model of rows. Give frames")
    if sees_frames(values["model"]):
        raise ConfigError(f"{work.node}: run {ref.node} has a model that sees clips of frames, not rows. Give frames")
    dilation = values.get("window", {}).get("dilation", 1)
    if dilation != 1:
        block, name = ("views", "stride") if values.get("views") else ("window", "dilation")
        raise ConfigError(
            f"{work.node}: run {ref.node} was trained on rows {dilation} apart ({block}.{name}), but of whole videos "
            f"all rows are seen. Train it with {name}: 1, on embeddings of fewer frames a second"
        )
    check_trained_on(refs, ref, values, store=store, where=work.node)
    with unchanged_run(store, ref):
        model, _ = load_run_model(folder, plugins=work.plugins)
    output, device = str(values.get("output", "pooled")), pick_device(config.device)
    stores = [EmbeddingStore(store.embeddings(entry.key)) for entry in refs]
    if isinstance(model, FrameModel) and model.is_tuned and _are_of_its_layers(refs[0], ref, stores[0], values):
        model, output = model.of_rows(), POOLED
        values["model"]["input_dim"] = model.options.map_channels(None)
    row = _row_shape(model, stores, output=output, values=values, where=f"{work.node}: run {ref.node}")
    loaded = RowModel(
        model=model.eval().to(device),
        name=values["model"]["name"],
        run=ref.node,
        weights_digest=folder.weights_digest(),
        device=device,
        config=config,
        output=output,
        row=row,
        has_views=len(row) == 1 and "views" in stores[0].spec,
        contexts=(
            model.options.contexts if isinstance(model, FrameModel) else 1,
            values.get("views", {}).get("context_stride", 1),
        ),
    )
    return loaded.tried(config.pieces.length or (values["model"]["length"] if len(loaded.row) == 1 else 1))


def _are_of_its_layers(ref: InputRef, run: InputRef, store: EmbeddingStore, values: Mapping[str, Any]) -> bool:
    """Whether rows are what the last layers inside the model give, made by embed of frames with that very run.

    Pooled rows of the encoder in front of them are others, though its weights are those in the run.
    """
    shapes, made_with = store.spec["outputs"], {entry.key for entry in ref.inputs.get("run", ())}
    is_of_run = values["stage"] == "finetune" and run.key in made_with  # not the node's stage: it may be imported
    return is_of_run and values.get("output", "pooled") not in shapes and POOLED in shapes


def _row_shape(
    model: VideoModel, stores: Sequence[EmbeddingStore], *, output: str, values: Mapping[str, Any], where: str
) -> tuple[int, ...]:
    """What the model reads of a row. Raises ConfigError where that is not what is stored."""
    source = model.options.source if isinstance(model, FrameModel) else "rows"
    if source == "frames":
        raise ConfigError(f"{where} reads frames and not rows. Give frames")
    num_wanted = values["model"]["input_dim"]
    if source != "maps":
        num_found = num_features(stores, output, takes_views=True)
    else:
        shape = stored_shape(stores[0], output)
        if len(stores) > 1 or len(shape) < _MAP_AXES:
            raise ConfigError(f"{where} reads maps (C, H, W) of one encoder, not rows of {shape}. Give those")
        num_found = shape[-_MAP_AXES]
    if num_wanted not in {None, num_found}:
        raise ConfigError(
            f"{where} was trained on rows of {num_wanted} features, these have {num_found}. Give the embeddings that "
            "it was trained on, in the same order"
        )
    return shape if source == "maps" else (num_found,)
