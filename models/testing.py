"""What models and encoders have to do, for authors of plug-ins: classes of tests to subclass, and the checks of a run.

    class TestNet(TemporalModelTests):
        def build(self, sizes): return Net(sizes, hidden=8)

    class TestTiny(EncoderTests):
        def build(self, outputs): return Tiny(outputs)

Shape letters: B batch, T rows of a window, D features, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from reelwright.models.contracts import ClipModel, ClipSizes, VideoModel
from reelwright.models.encoders.base import DataConfig, Encoder, zero_input
from reelwright.models.temporal.common import TemporalSizes

_BATCH = 2


def checked_model(model: VideoModel, sizes: TemporalSizes) -> VideoModel:
    """``model``, after one forward pass on zeros. Raises ValueError or TypeError for other outputs than are needed.

    These are `logits`, or of models without any (`num_outputs` 0) `embedding`. Mode and random numbers are as before
    afterwards.
    """
    if not isinstance(model, VideoModel):
        raise TypeError(f"{type(model).__name__} is no subclass of reelwright.models.contracts.VideoModel.")
    return _check_outputs(model, _batch(torch.zeros(_BATCH, sizes.length, sizes.input_dim)), sizes)


def _check_outputs(model: VideoModel, batch: dict[str, Tensor], sizes: TemporalSizes) -> VideoModel:
    output = "logits" if sizes.num_outputs else "embedding"
    _check_shapes(model, _given(model, batch), {output: sizes.num_outputs}, sizes=sizes, of="windows of {} rows")
    return model


def checked_clip_model(model: ClipModel, sizes: ClipSizes) -> ClipModel:
    """``model``, after one forward pass on zeros. Raises ValueError or TypeError for other outputs than are needed.

    These are `logits`, or `logits.HEAD` of each head. Mode and random numbers are as before afterwards.
    """
    batch = {
        "frames": torch.zeros(_BATCH, sizes.length, 3, *sizes.frame_size),
        "mask": torch.ones(_BATCH, sizes.length, dtype=torch.bool),
    }
    found = _given(model, batch)
    wanted = {"logits": sizes.num_outputs}
    if found and sizes.heads and "logits" not in found:
        wanted = {f"logits.{head}": size for head, size in sizes.heads.items()}
    _check_shapes(model, found, wanted, sizes=sizes, of="clips of {} frames")
    return model


def _given(model: nn.Module, inputs: Any) -> dict[str, Any]:
    """What ``model`` gives in eval mode; nothing where that is no dictionary."""
    was_training = model.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        found = model.eval()(inputs)
    model.train(was_training)
    return found if isinstance(found, dict) else {}


def _check_shapes(
    model: nn.Module, found: dict[str, Any], wanted: dict[str, int], *, sizes: TemporalSizes | ClipSizes, of: str
) -> None:
    """TypeError or ValueError where outputs are not there, or not of as many values as ``wanted``; 0: of any number."""
    name = type(model).__name__
    for output, size in wanted.items():
        if not isinstance(found.get(output), Tensor):
            raise TypeError(f"{name} gives no tensor called {output}.")
        shape = tuple(found[output].shape)
        needed = (_BATCH, *((sizes.length,) if sizes.per_row else ()), size or shape[-1])
        if shape != needed:
            raise ValueError(
                f"{name} gives {output} of shape {shape} for {_BATCH} {of.format(sizes.length)}; needed is {needed}."
            )


def checked_encoder(encoder: Encoder, *, outputs: Sequence[str]) -> Encoder:
    """``encoder``, after one forward pass on zeros. Raises ValueError or TypeError for other outputs than needed."""
    name = type(encoder).__name__
    if not isinstance(encoder, Encoder):
        raise TypeError(f"{name} is no subclass of reelwright.models.encoders.base.Encoder.")
    for attribute, kind in (("kind", str), ("data_config", DataConfig), ("model", nn.Module)):
        if not isinstance(getattr(encoder, attribute, None), kind):
            raise TypeError(f"{name} has no {attribute} of type {kind.__name__}.")
    if tuple(encoder.outputs) != tuple(outputs):
        raise ValueError(f"{name} has outputs {tuple(encoder.outputs)}; asked for were {tuple(outputs)}.")
    found = _given(encoder, zero_input(encoder))
    missing = [output for output in outputs if not isinstance(found.get(output), Tensor) or len(found[output]) != 1]
    if missing:
        raise ValueError(f"{name} gives no tensor {missing[0]!r} with a row a frame (or clip).")
    return encoder


def _batch(rows_BTD: Tensor) -> dict[str, Tensor]:
    return {"rows": rows_BTD, "mask": torch.ones(rows_BTD.shape[:2], dtype=torch.bool)}


class TemporalModelTests:
    """Subclass it in a test module, with `build`; for models that label rows, and for those that label windows."""

    sizes = (
        TemporalSizes(input_dim=5, num_outputs=3, length=6, per_row=True),
        TemporalSizes(input_dim=5, num_outputs=3, length=6, per_row=False),
    )

    def build(self, sizes: TemporalSizes) -> VideoModel:
        """The model of those sizes, with any options; ValueError where it has no such form."""
        raise NotImplementedError

    def batch(self, sizes: TemporalSizes) -> dict[str, Tensor]:
        """Random inputs of two windows, and their mask; what is not `rows` (B,T,D) has frames or tokens (B,T,...)."""
        return _batch(torch.randn(_BATCH, sizes.length, sizes.input_dim))

    def _built(self) -> list[tuple[VideoModel, TemporalSizes]]:
        found = []
        for sizes in self.sizes:
            torch.manual_seed(0)
            found.append((self.build(sizes), sizes))
        return found

    def test_outputs_have_the_shapes_that_are_trained_on(self) -> None:
        """`logits` (B,T,K) or (B,K)."""
        for model, sizes in self._built():
            _check_outputs(model, self.batch(sizes), sizes)

    def test_padded_rows_change_nothing(self) -> None:
        """Whatever stands in them, NaN too."""
        for model, sizes in self._built():
            batch = self.batch(sizes)
            batch["mask"][:, -2:] = False
            other = {name: value.clone() for name, value in batch.items()}
            for name in other.keys() - {"mask"}:
                other[name][:, -2:] = torch.nan
            with torch.no_grad():
                first, second = (model.eval()(given)["logits"] for given in (batch, other))
            real = (slice(None), slice(0, -2)) if sizes.per_row else slice(None)
            assert torch.equal(first[real], second[real]), "logits of real rows depend on what stands in padded ones"

    def test_windows_of_a_batch_do_not_see_each_other(self) -> None:
        """In eval mode."""
        for model, sizes in self._built():
            batch = self.batch(sizes)
            singles = ({name: value[at : at + 1] for name, value in batch.items()} for at in range(_BATCH))
            with torch.no_grad():
                together = model.eval()(batch)["logits"]
                alone = torch.cat([model(single)["logits"] for single in singles])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

    def test_everything_that_learns_has_a_gradient(self) -> None:
        """A parameter without one is never trained."""
        for model, sizes in self._built():
            batch = self.batch(sizes)
            sum(value.float().square().sum() for value in model.train()(batch).values()).backward()
            without = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
            assert not without, f"no gradient reaches {', '.join(without)}"

    def test_the_state_is_all_that_it_has_learned(self) -> None:
        """Another one with the same state gives the same."""
        for model, sizes in self._built():
            other = self.build(sizes)
            other.load_state_dict(model.state_dict())
            batch = self.batch(sizes)
            with torch.no_grad():
                assert torch.equal(model.eval()(batch)["logits"], other.eval()(batch)["logits"])


class EncoderTests:
    """Subclass it in a test module, with `build`."""

    outputs: tuple[str, ...] = ("pooled",)

    def build(self, outputs: tuple[str, ...]) -> Encoder:
        """The encoder with those outputs."""
        raise NotImplementedError

    def _built(self) -> Encoder:
        torch.manual_seed(0)
        return self.build(self.outputs)

    def test_outputs_are_those_asked_for(self) -> None:
        """A tensor each, with a row a frame (or clip)."""
        checked_encoder(self._built(), outputs=self.outputs)

    def test_frames_of_a_batch_do_not_see_each_other(self) -> None:
        """In eval mode."""
        encoder = self._built().eval()
        frames = torch.randn(_BATCH, *zero_input(encoder).shape[1:])
        with torch.no_grad():
            together = encoder(frames)
            alone = [encoder(frame[None]) for frame in frames]
        for output in self.outputs:
            one_by_one = torch.cat([found[output] for found in alone])
            torch.testing.assert_close(together[output], one_by_one, rtol=1e-4, atol=1e-5)

    def test_passes_side_by_side_do_not_see_each_other(self) -> None:
        """Where `is_reentrant` says that they may run so."""
        encoder = self._built().eval()
        batches = [torch.randn(_BATCH, *zero_input(encoder).shape[1:]) for _ in range(8 if encoder.is_reentrant else 0)]

        def encode(x: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                return encoder(x)  # type: ignore[no-any-return]

        with ThreadPoolExecutor(4) as threads:
            for found, batch in zip(threads.map(encode, batches), batches, strict=True):
                torch.testing.assert_close(found, encode(batch), rtol=1e-4, atol=1e-5)

    def test_its_weights_are_those_of_model(self) -> None:
        """`model` is what weights are loaded into, and what their digest is of."""
        encoder = self._built()
        names = {f"model.{name}" for name in encoder.model.state_dict()}
        assert set(encoder.state_dict()) == names, "weights outside `model` would be neither loaded nor digested"
