"""Measuring layouts and batch sizes: what is timed is what was asked for, and memory that does not suffice is told."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from reelwright.models.encoders.build import build_encoder
from reelwright.stages.embed.encoding import tuning
from reelwright.stages.embed.encoding.forward import Execution, ForwardPass, current
from reelwright.stages.embed.encoding.streams import Streams
from reelwright.storage.errors import StageError

CPU = torch.device("cpu")


class Watched(nn.Module):
    """The forward pass of a model with room for `room` rows, and how weights and rows lay in memory each time."""

    def __init__(self, model: nn.Module, *, room: int = 1000) -> None:
        super().__init__()
        self.model, self.room = model, room
        self.seen: list[tuple[bool, bool, int]] = []

    def forward_features(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError(f"no room for {len(x)}")
        weights = [weight for weight in self.model.parameters() if weight.ndim == 4 and min(weight.shape[1:3]) > 1]
        layouts = {weight.is_contiguous(memory_format=torch.channels_last) for weight in weights}
        assert len(layouts) == 1, "weights of both layouts"
        self.seen.append((layouts.pop(), x.is_contiguous(memory_format=torch.channels_last), len(x)))
        return self.model.forward_features(x)

    def forward_head(self, x, **options):
        return self.model.forward_head(x, **options)


def watched(**options):
    encoder = build_encoder("timm/test_resnet", seed=0).eval()
    encoder.data_config = replace(encoder.data_config, size=(32, 32))
    encoder.model = Watched(encoder.model, **options)
    return encoder


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    monkeypatch.setattr(tuning, "BUDGET_SECONDS", 1e6)
    monkeypatch.setattr(tuning, "ROUNDS", 1)
    monkeypatch.setattr(tuning, "BATCHES", {"cpu": (4, 8)})


def test_every_layout_is_timed_with_weights_and_rows_that_have_it():
    encoder = watched()
    tuning.measure(encoder, encoder.data_config, Execution(device=CPU), Streams())
    layouts = [(of_weights, of_rows) for of_weights, of_rows, _ in encoder.model.seen]
    assert set(layouts) == {(True, True), (False, False)}


def test_a_pass_of_plain_layout_undoes_the_other():
    encoder = watched()
    for wanted in (True, False):
        ForwardPass(encoder, encoder.data_config, Execution(device=CPU, channels_last=wanted))
        weight = max((one for one in encoder.parameters() if one.ndim == 4), key=lambda one: one.shape[1])
        assert weight.is_contiguous(memory_format=torch.channels_last) == wanted
        assert weight.is_contiguous() != wanted


def test_where_the_smallest_batch_does_not_fit_what_does_is_chosen():
    encoder = watched(room=3)
    choice, measured = tuning.measure(encoder, encoder.data_config, Execution(device=CPU), Streams())
    assert choice.batch_size == 2  # half of 4
    assert choice.rows_per_second > 0
    assert all("batch_size=2" in name for name in measured)


def test_no_room_for_a_single_row_is_a_clear_error():
    encoder = watched(room=0)
    with pytest.raises(StageError, match="memory of cpu does not suffice for one row at a time"):
        tuning.measure(encoder, encoder.data_config, Execution(device=CPU), Streams())


def test_a_pass_makes_its_gpu_the_current_one():
    made_current = current(torch.device("cuda", 1))
    assert isinstance(made_current, torch.cuda.device)
    assert made_current.idx == 1
    with current(CPU):
        pass


def test_an_encoder_of_clips_with_weights_over_pictures_has_its_layouts_timed():
    encoder = build_encoder("frames/test_vit", seed=0, model_args={"img_size": 32, "clip_length": 2}).eval()
    tuning.measure(encoder, encoder.data_config, Execution(device=CPU), Streams())
    ForwardPass(encoder, encoder.data_config, Execution(device=CPU, channels_last=True))
    weight = next(each for each in encoder.parameters() if each.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
