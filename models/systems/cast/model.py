"""CAST: a spatial and a temporal expert in lock-step, which look at each other behind every attention.

    frames -> space expert: s -> s + A(attention) -> + B-CAST(s, t) -> + MLP + B(...) -> ... -> mean class -> heads
    frames -> time expert:  t -> t + A(attention) -> + B-CAST(t, s) -> + MLP + B(...) -> ... -> mean       -> heads

Lee et al. 2023 (CAST: Cross-Attention in Space and Time for Video Action Recognition), section 3, and its public code.
Shape letters: B clips, F frames of a clip, T frames of the grid, P prefix tokens, N places, D features, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reelwright.models.blocks.init_from import grid_of
from reelwright.models.clip_options import CastOptions
from reelwright.models.contracts import ClipModel, ClipSizes, Inputs, Part
from reelwright.models.encoders.base import DataConfig, Encoder
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.cast.blocks import CastBlock, CrossAttention
from reelwright.models.systems.cast.experts import EXPERTS, Expert, check_equal, check_start, repeat_real
from reelwright.models.systems.cast.head import CastHead
from reelwright.models.systems.cast.public_names import from_public

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


class Cast(ClipModel):
    """Two experts and what lies between them."""

    data_config = DataConfig(
        size=(224, 224),
        resize=224,
        interpolation="bilinear",
        antialias=True,
        crop="center",
        mean=(0.0, 0.0, 0.0),  # each expert normalises for itself
        std=(1.0, 1.0, 1.0),
        clip_length=16,
    )

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        *,
        length: int,
        sizes: Sequence[tuple[str, int]],
        options: CastOptions | None = None,
    ) -> None:
        """`encoders` of space and time, with their weights; `length` F frames of a clip; `sizes` as of `CastHead`.

        Raises ValueError for experts that do not fit together, and blocks that they do not have.
        """
        super().__init__()
        self.options = options = options or CastOptions()
        self.space, self.time = (
            Expert(encoders[name], length=length, every=options.every, pixels=options.pixels) for name in EXPERTS
        )
        check_equal(self.space, self.time)
        depth = self.space.depth
        top = depth if options.top is None else options.top
        if top > depth:
            raise ValueError(f"top is {top}, but the experts have {depth} blocks.")
        exchanging = _exchanging(options, depth, top)
        self.first = depth - top
        rates = torch.linspace(0, options.drop_path, depth, device="cpu").tolist() if depth > 1 else [options.drop_path]
        self.blocks = nn.ModuleDict(
            {
                str(index): CastBlock(self._experts(), options, exchanges=index in exchanging, rate=rates[index])
                for index in range(self.first, depth)
            }
        )
        norms = {name: expert.take_norm() for name, expert in self._experts().items()}
        self.head = CastHead(norms, self.space.width, sizes=sizes, options=options)
        self._freeze_unseen()
        if options.source == "tokens":
            for expert in self._experts().values():
                expert.keep_last(top)
        self._is_recomputed = False

    def _freeze_unseen(self) -> None:
        """Freeze what no head sees: behind the last exchange, that of an expert which answers no head."""
        experts = self._experts()
        seen = {name for name in EXPERTS for reader in self.head.reads.values() if reader in {name, "both"}}
        unseen: list[nn.Module] = [self.head.get_submodule(f"{name}_norm") for name in set(EXPERTS) - seen]
        for index in reversed(range(self.space.depth)):
            block = self.blocks[str(index)] if index >= self.first else None
            unseen += [part for name in set(EXPERTS) - seen for part in experts[name].half_of(index, "mlp")]
            if isinstance(block, CastBlock):
                unseen += block.half_of(set(EXPERTS) - seen, "mlp")
                if block.exchange is not None:
                    unseen += block.exchange.unseen(seen)
                    seen |= set(EXPERTS) if seen & set(block.exchange.up) else set()
                unseen += block.half_of(set(EXPERTS) - seen, "attention")
            unseen += [part for name in set(EXPERTS) - seen for part in experts[name].half_of(index, "attention")]
        for part in (*unseen, *(experts[name] for name in set(EXPERTS) - seen)):
            part.requires_grad_(requires_grad=False)

    @classmethod
    def of(cls, sizes: ClipSizes, options: CastOptions) -> Cast:
        """See ClipModel; experts without `img_size` and `clip_length` of their own are of the clips' size."""
        if options.source != "frames":
            raise ValueError("source: tokens is of train, which reads stored ones; leave source out.")
        named: dict[str, Any] = {}
        for name in EXPERTS:
            is_video = getattr(options, name).startswith("videomae/")
            height, width = sizes.frame_size
            size = {"img_size": height if height == width else sizes.frame_size}
            clip = {"clip_length": sizes.length} if is_video else {}
            named[f"{name}_args"] = {**size, **clip, **getattr(options, f"{name}_args")}
        heads = list(sizes.heads.items()) or [("", sizes.num_outputs)]
        model = build_cast(length=sizes.length, sizes=heads, options=replace(options, **named))
        if model.space.size != sizes.frame_size:
            raise ValueError(
                f"frames have {sizes.frame_size} pixels, but the experts see {model.space.size}; set preprocess.size, "
                "or leave img_size out of space_args and time_args."
            )
        return model

    @classmethod
    def of_tokens(cls, *, length: int, heads: Mapping[str, int], num_outputs: int, options: CastOptions) -> Cast:
        """See ClipModel."""
        return build_cast(length=length, sizes=list(heads.items()) or [("", num_outputs)], options=options)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint of the public code by our names. Raises ValueError for the last blocks of other experts."""
        found = from_public(state)
        for name, expert in self._experts().items():
            own = {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}
            check_start(name, expert, own, is_whole=self.options.source == "frames")
        self._check_windows(found)
        return found

    def _check_windows(self, state: Mapping[str, Tensor]) -> None:
        """ValueError for positions in windows of another kind than here, or over places of another number of frames.

        Their length alone does not say: 4 frames of 16 places are as many as 16 of 4. The places of ``state`` are those
        of an expert on single frames, else of windows of space; its frames those of windows of time. Where it has none
        of these (stored tokens, all windows over both) its grid is taken for that of here.
        """
        tables = [(f"{name}.key_pos", part) for name, part in self.named_modules() if isinstance(part, CrossAttention)]
        lengths = {part.window: len(state[name]) for name, part in tables if name in state and state[name].ndim > 1}
        positions = [
            state.get(f"{name}.model.pos_embed") for name, each in self._experts().items() if not each.is_video
        ]
        grids = [grid_of(each.shape[-2]) for each in positions if each is not None]
        places = next((side * side for extra, side in grids if extra >= 0), lengths.get("space"))
        if places is not None and lengths.get("space", places) != places:
            raise ValueError(
                f"its positions of windows of space are {lengths['space']}, but its frames have {places} places: its "
                "windows are others. Set t2s_window and s2t_window as it has them."
            )
        length = lengths.get("space_time")
        frames: float | None = lengths.get("time")
        if length is not None and places is not None:
            frames = length / places
        if length is not None and frames is not None and frames != self.space.grid[0]:
            raise ValueError(
                f"its positions of windows over space and time are {length}, which are {frames:g} frames of "
                f"{length / frames:g} places, but a clip has {self.space.grid[0]} frames here, and such positions are "
                "not resized in time. Take clips of as many frames, or windows of space or time alone."
            )

    def _experts(self) -> dict[str, Expert]:
        return {"space": self.space, "time": self.time}

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Both experts, frozen unless said otherwise, and what is added: its blocks are layers as those of experts."""
        depth = self.space.depth
        layers = {name: _layer(name, depth) for name, _ in self.named_parameters()}
        if self.options.experts == "trained":
            return {"": Part(layers=layers)}

        def part(prefix: str, state: str) -> Part:
            own = {name.removeprefix(f"{prefix}."): at for name, at in layers.items() if name.startswith(f"{prefix}.")}
            first = min(own.values(), default=0)
            return Part(state=state, layers={name: at - first for name, at in own.items()})  # type: ignore[arg-type]

        frozen = {name: part(name, "frozen") for name in EXPERTS}
        return {**frozen, "blocks": part("blocks", "trained"), "head": part("head", "trained")}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks again in the backward pass instead of keeping what is inside."""
        self._is_recomputed = enable

    def take_weights(self, encoders: Mapping[str, Encoder]) -> None:
        """Copy the weights of two encoders into the experts and the norms behind them, as far as these are kept.

        Raises RuntimeError for encoders of other shapes, ValueError for those that lack weights.
        """
        for name, expert in self._experts().items():
            given, norm = encoders[name].model.state_dict(), self.head.get_submodule(f"{name}_norm").state_dict()
            own = expert.model.state_dict()
            last = next((key for key in ("norm", "fc_norm") if f"{key}.weight" in given), None)
            missing = [key for key in own if key not in given]
            if missing:
                raise ValueError(f"{name} lacks {', '.join(missing[:3])}.")
            expert.model.load_state_dict({key: given[key] for key in own})
            if last is not None:
                self.head.get_submodule(f"{name}_norm").load_state_dict({key: given[f"{last}.{key}"] for key in norm})

    def forward(self, batch: Inputs) -> dict[str, Tensor]:
        """`logits` (B,K), and of several heads `logits.NAME` (B,K of the head).

        In: `mask` (B,F) and `frames` (B,F,3,H,W), RGB in [0, 1]; a padded frame counts as the last real one before it.
        Of source tokens: `rows` (B,1,M,D), a clip a window: the tokens that enter the first of the last `top` blocks of
        space, frame after frame with prefix tokens in front of each, and behind them those of time. Raises ValueError
        for other shapes.
        """
        streams = self._tokens(batch["rows"]) if self.options.source == "tokens" else self._frames(batch)
        for index in range(self.first, self.space.depth):
            block = self.blocks[str(index)]
            if self._is_recomputed and self.training:
                streams = checkpoint(block, self._experts(), index, streams, use_reentrant=False)
            else:
                streams = block(self._experts(), index, streams)
        found: dict[str, Tensor] = self.head(*(each.summary(streams[name]) for name, each in self._experts().items()))
        return found

    def _frames(self, batch: Inputs) -> dict[str, Tensor]:
        frames = repeat_real(batch["frames"], batch["mask"])
        found = {}
        for name, expert in self._experts().items():
            stream = expert.enter(frames)
            for block in range(self.first):
                stream = expert.run(block, stream)
            found[name] = stream.contiguous()  # as stored ones: sums over tokens then have the same bits
        return found

    def _tokens(self, rows_B1MD: Tensor) -> dict[str, Tensor]:
        counts = [expert.num_tokens for expert in self._experts().values()]
        wanted = (1, sum(counts), self.space.width)
        if tuple(rows_B1MD.shape[1:]) != wanted:
            raise ValueError(
                f"windows of tokens must have shape {wanted}, one clip with {counts[0]} tokens of space and "
                f"{counts[1]} of time; got {tuple(rows_B1MD.shape[1:])}."
            )
        parts = zip(self._experts().items(), torch.split(rows_B1MD[:, 0], counts, dim=1), strict=True)
        return {name: expert.from_tokens(tokens).contiguous() for (name, expert), tokens in parts}


def build_cast(
    *,
    length: int,
    sizes: Sequence[tuple[str, int]],
    options: CastOptions,
    encoders: Mapping[str, Encoder] | None = None,
) -> Cast:
    """CAST with random weights from torch's global random state, but of experts that are given (`encoders`).

    Raises ValueError for experts that there are not or do not fit, and for heads that no expert answers.
    """
    if encoders is None:
        named = {"space": (options.space, options.space_args), "time": (options.time, options.time_args)}
        encoders = {name: build_encoder(encoder, model_args=args) for name, (encoder, args) in named.items()}
    return Cast(encoders, length=length, sizes=sizes, options=options)


def _layer(name: str, depth: int) -> int:
    """0 before the blocks, 1 more than its number in a block, the last behind them."""
    found = _BLOCK.search(name)
    if found is not None:
        return 1 + int(found[1])
    return depth + 1 if name.startswith("head.") else 0


def _exchanging(options: CastOptions, depth: int, top: int) -> set[int]:
    """Blocks in which the experts exchange. Raises ValueError for some that are not among the last `top`."""
    if options.exchange == "none":
        return set()
    allowed = range(depth - top, depth)
    if options.exchange_blocks is None:
        return set(allowed)
    outside = [block for block in options.exchange_blocks if block not in allowed]
    if outside:
        raise ValueError(
            f"exchange_blocks names block {outside[0]}; allowed: {allowed.start} to {allowed.stop - 1}"
            + (f" (top is {top})." if options.top is not None else ".")
        )
    return set(options.exchange_blocks)
