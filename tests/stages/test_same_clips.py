"""Equal settings choose equal frames in embed, train, finetune and predict, whatever the video's length."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reelwright.models.encoders.base import DataConfig
from reelwright.stages.base.config import parse_config
from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.windows import WindowShape, grid_windows
from reelwright.stages.datasets.tasks.labels import LabelSpace
from reelwright.stages.datasets.tasks.task import build_task
from reelwright.stages.embed.clips import ClipAssembler
from reelwright.stages.embed.config import ClipSettings, EmbedConfig
from reelwright.stages.embed.encoding.preprocess import override
from reelwright.stages.embed.videos import clip_of
from reelwright.stages.finetune.clips import FrameBatches
from reelwright.stages.predict.config import PredictWindowSettings
from reelwright.stages.predict.loaded_run import LoadedRun, VideoRows, predicted_shape
from reelwright.stages.predict.scorer import Scorer
from reelwright.stages.train.config import TrainConfig, TrainWindowSettings
from reelwright.stages.train.window_batches import WindowBatches
from reelwright.stages.train.work import _model_values
from reelwright.storage.arrays.spans import RowTimes, Spans
from reelwright.storage.errors import ConfigError
from tests.stages.sampling.brute_force import GRIDS, clips_of

PLAIN = DataConfig(
    size=(1, 1), resize=1, interpolation="bilinear", antialias=True, crop="center",
    mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), clip_length=16,
)  # fmt: skip
FILL = 0  # frames and rows are their number plus 1


def seen_by_embed(num_frames, grid):
    config = parse_config(
        EmbedConfig, {"encoder": "torchvision/r3d_18", "weights": "none", "clip": grid}, where="embed"
    )
    data_config = override(PLAIN, config.preprocess, clip=config.clip)
    loaded = SimpleNamespace(config=config, encoder=SimpleNamespace(kind="video"), data_config=data_config)
    maker, numbers = ClipAssembler(clip_of(loaded, where="embed")), np.arange(num_frames)
    frames = (numbers + 1).astype(np.uint8)[:, None, None, None].repeat(3, 3)
    times = RowTimes(source_frame=numbers, pts_seconds=numbers / 1.0, stop_seconds=numbers + 1.0)
    parts = [*maker.add(frames, times), *maker.close()]
    return [row.reshape(grid["length"], 3)[:, 0].tolist() for part in parts for row in part.frames]


def of_run(grid):
    """The window block of the config.yaml that train writes, and finetune and predict read."""
    config = parse_config(TrainConfig, {"embeddings": ["embed"], "task": "video", "window": grid}, where="train")
    return _model_values(config, [], input_dim=1, num_classes=2)["window"]


def batched(make, num_frames, grid):
    """Inputs of batches of all windows, FILL where the mask says that there is nothing."""
    shape = WindowShape(**of_run(grid))
    windows = grid_windows([num_frames], shape)
    batches = make(windows=windows, targets=np.zeros(len(windows), dtype=np.int64), shape=shape, batch_size=4)
    found = []
    for batch in batches.epoch(0):
        mask = batch.inputs["mask"]
        values = batch.inputs["rows"] if "rows" in batch.inputs else batch.inputs["frames"]
        found += torch.where(mask, values.reshape(*mask.shape), torch.tensor(FILL)).long().tolist()
    return found


def seen_by_train(num_frames, grid):
    rows = torch.arange(1.0, num_frames + 1)[:, None]
    block = FeatureBank(rows, np.array([0, num_frames]), (_spans(num_frames),), ("d",))
    return batched(lambda **of: WindowBatches(block=block, **of), num_frames, grid)


def seen_by_finetune(num_frames, grid):
    def read(_video, rows):
        return (rows + 1).astype(np.uint8)[:, None, None, None]

    return batched(lambda **of: FrameBatches(read=read, **of), num_frames, grid)


class _Recording(nn.Module):
    """A temporal model that keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, batch):
        rows, mask = batch["rows"], batch["mask"]
        self.seen += torch.where(mask, rows[..., 0], torch.tensor(float(FILL))).long().tolist()
        return {"logits": torch.zeros(len(rows), 2)}


def seen_by_predict(num_frames, grid):
    module = _Recording()
    task = build_task("video", LabelSpace(classes=("a", "b")))
    run = LoadedRun(
        module=module, key="run", stage="train", task=task, output="pooled", row_shape=(1,), keeps_positions=False,
        window=of_run({"length": 3, "dilation": 3}), clips={"sampling": "grid"},
    )  # fmt: skip
    window = parse_config(PredictWindowSettings, grid, where="predict.window")
    scorer = Scorer(run, window, batch_size=4)
    module.seen.clear()
    if scorer.num_windows(num_frames):
        rows = np.arange(1, num_frames + 1, dtype=np.float32)[:, None]
        scorer.score([VideoRows("d", rows, _spans(num_frames))])
    return module.seen


def _spans(num_frames):
    numbers = np.arange(num_frames)
    return Spans(numbers / 1.0, numbers + 1.0, numbers, numbers + 1)


@settings(max_examples=60, deadline=None)
@given(num_frames=st.integers(1, 40), grid=GRIDS)
def test_equal_settings_choose_equal_frames(num_frames, grid):
    wanted = [
        [frame + 1 for frame in clip]
        + (grid["length"] - len(clip)) * [clip[-1] + 1 if grid["short"] == "repeat" else FILL]
        for clip in clips_of(num_frames, grid)
    ]
    assert seen_by_embed(num_frames, grid) == wanted
    assert seen_by_train(num_frames, grid) == wanted
    assert seen_by_finetune(num_frames, grid) == wanted
    assert seen_by_predict(num_frames, grid) == wanted


def test_defaults_leave_out_nothing():
    assert ClipSettings().to_end is TrainWindowSettings().to_end is PredictWindowSettings().to_end is True
    assert (ClipSettings().short, TrainWindowSettings().short) == ("repeat", "pad")


TRAINED = {
    "as in training": ({}, {"short": "repeat"}, "repeat"),
    "left out in training": ({}, {"short": "leave_out"}, "pad"),
    "as asked for": ({"short": "leave_out"}, {"short": "repeat"}, "leave_out"),
}


@pytest.mark.parametrize(("asked", "trained", "short"), TRAINED.values(), ids=TRAINED)
def test_what_predict_does_with_short_videos(asked, trained, short):
    shape = predicted_shape(PredictWindowSettings(**asked), of_run({"length": 4, "dilation": 2, **trained}))
    assert shape == WindowShape(length=4, dilation=2, to_end=True, short=short)


OLDER = {True: "pad", False: "leave_out"}


@pytest.mark.parametrize("pad", OLDER)
@pytest.mark.parametrize("model", [TrainWindowSettings, PredictWindowSettings], ids=["train", "predict"])
def test_the_older_word_pad_still_works(model, pad):
    assert parse_config(model, {"pad": pad}, where="window") == model(short=OLDER[pad])
    assert parse_config(model, {"pad": pad, "short": OLDER[pad]}, where="window") == model(short=OLDER[pad])
    with pytest.raises(ConfigError, match=f"pad: {pad} is an older word for short: {OLDER[pad]}, but short is given"):
        parse_config(model, {"pad": pad, "short": "repeat"}, where="window")


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (TrainWindowSettings, {"pad": "yes"}, "pad is 'yes'; it must be true or false. Write short: pad, repeat or"),
        (PredictWindowSettings, {"short": "skip"}, "short: 'skip' is not allowed: Input should be 'pad', 'repeat' or"),
        (PredictWindowSettings, {"to_end": None}, "to_end: None is not allowed: Input should be a valid boolean"),
        (ClipSettings, {"pad": True}, "pad: unknown key.*Known: dilation, hop, length, short, to_end"),
    ],
    ids=["pad", "short", "to_end", "clips never had pad"],
)  # fmt: skip
def test_refused(model, values, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(model, values, where="window")
