"""Key frames of labels, and batches drawn from them: counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from reelwright.models.encoders.base import Encoder
from reelwright.models.encoders.build import build_encoder
from reelwright.models.systems.embedding_head import EmbeddingEncoder, ProjectionHead
from reelwright.stages.augment.resized_crop import CropSettings, build_crop
from reelwright.stages.datasets.labelled import LabelledVideo
from reelwright.stages.decode.geometry import Geometry
from reelwright.stages.pretrain.batches import KeyFrameBatches, draw_batch, make_pool
from reelwright.stages.pretrain.config import PretrainConfig
from reelwright.stages.pretrain.examples import Examples, find_examples, state_classes
from reelwright.stages.pretrain.examples_config import BatchSettings, ImageAugmentSettings
from reelwright.stages.pretrain.module import augment_images
from reelwright.storage.arrays.spans import Spans
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

LABELS = ("error", "other", "s1", "s2")


def config(**values):
    return PretrainConfig(frames="f", encoder="timm/test_resnet", weights="none", **values)


def spans(num_rows, *, fps=10.0):
    start = np.arange(num_rows) / fps
    frames = np.arange(num_rows)
    return Spans(start, start + 1 / fps, frames, frames + 1)


def found(annotation, *, num_rows=100, **values):
    settings = config(**values)
    video = LabelledVideo("a", "d", "train", annotation)
    states = state_classes(settings, LABELS, background=UNKNOWN)
    every = values.pop("every_frame", False)
    return find_examples([video], {"d": (3, spans(num_rows))}, config=settings, states=states, every_frame=every)


def test_key_frames_follow_a_state_and_background_lies_seven_to_six_spans_before_it():
    annotation = Annotation(times=((0.0, 1), (8.0, 2), (9.0, 0), (9.5, 3)))
    examples = found(annotation, key_frames={"seconds": 0.5})
    assert set(examples.video.tolist()) == {3}
    of_class = {label: examples.row[examples.label == label].tolist() for label in (0, 1, 2)}
    assert of_class[1] == [80, 81, 82, 83, 84]
    assert of_class[2] == [95, 96, 97, 98, 99]
    # before s1 45-49, before s2 60-64, before the unlisted start nothing; the error gives nothing at all
    assert of_class[0] == [45, 46, 47, 48, 49, 60, 61, 62, 63, 64]


@pytest.mark.parametrize("kind", ["times", "segments"])
def test_rows_and_segments_say_the_same(kind):
    times = ((2.0, 2), (4.0, 3))
    annotation = Annotation(times=times) if kind == "times" else Annotation(segments=((2.0, 4.0, 2), (4.0, 9.0, 3)))
    examples = found(annotation, key_frames={"seconds": 0.2})
    assert examples.row[examples.label > 0].tolist() == [20, 21, 40, 41]


def test_a_state_that_begins_within_a_frame_is_seen_from_the_next_one():
    examples = found(Annotation(times=((2.05, 2), (3.0, 3))), key_frames={"seconds": 0.2})
    assert examples.row[examples.label == 1].tolist() == [21, 22]


def test_every_frame_has_the_label_that_holds():
    examples = found(Annotation(times=((0.2, 2), (0.4, 0), (0.6, 3), (0.8, 1))), num_rows=10, sampling="all")
    # the two rows of the error are left out; before the first label, and of others, is background
    assert examples.row.tolist() == [0, 1, 2, 3, 6, 7, 8, 9]
    assert examples.label.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]


def test_frames_by_number_do_not_say_how_long_a_state_holds():
    with pytest.raises(InputError, match="give rows with time_seconds, or segments"):
        found(Annotation(frames=((3, 2),)))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"states": ["s1", "s3"]}, "states: 's3' is no label.*Labels: error, other, s1, s2"),
        ({"states": ["s1"]}, "two states to tell apart; there are s1"),
        ({"others": ["s1", "s2", "other"]}, "two states to tell apart; there are none"),
    ],
)
def test_states_that_cannot_be(values, match):
    with pytest.raises(ConfigError, match=match):
        state_classes(config(**values), LABELS, background=UNKNOWN)


def examples_of(**counts):
    labels = np.repeat([int(name[1:]) for name in counts], list(counts.values()))
    return Examples(np.zeros(len(labels), int), np.arange(len(labels)), labels.astype(np.int64))


NONE = Examples.joined([])


def test_a_batch_has_as_many_frames_of_each_state():
    batch = BatchSettings(per_class=4, background=3)
    pool = make_pool(examples_of(c0=9, c1=2, c2=7, c3=5), NONE, batch=batch)
    picked = pool.examples.label[draw_batch(pool, batch, np.random.default_rng(0))]
    assert np.bincount(picked).tolist() == [3, 4, 4, 4]
    rows = draw_batch(pool, batch, np.random.default_rng(0))
    assert len(set(rows[picked == 2].tolist())) == 4  # none twice while there are enough
    assert len(set(rows[picked == 1].tolist())) == 2


def test_states_without_real_frames_take_synthetic_ones():
    batch = BatchSettings(per_class=2, synthetic_per_class=3, background=1)
    pool = make_pool(examples_of(c0=4, c1=5), examples_of(c1=5, c2=5), batch=batch)
    picked = draw_batch(pool, batch, np.random.default_rng(1))
    is_synthetic = picked >= 9
    labels = pool.examples.label[picked]
    assert np.bincount(labels[~is_synthetic]).tolist() == [1, 2]
    assert np.bincount(labels[is_synthetic]).tolist() == [0, 3, 5]


def test_some_states_are_drawn_for_each_batch():
    batch = BatchSettings(classes=2, per_class=2, background=0)
    pool = make_pool(examples_of(c1=5, c2=5, c3=5), NONE, batch=batch)
    drawn = [pool.examples.label[draw_batch(pool, batch, np.random.default_rng(seed))] for seed in range(20)]
    assert {len(set(labels.tolist())) for labels in drawn} == {2}
    assert {label for labels in drawn for label in labels.tolist()} == {1, 2, 3}


@pytest.mark.parametrize(
    ("batch", "real", "match"),
    [
        (BatchSettings(), {"c0": 4, "c1": 4}, "fewer than two states"),
        (BatchSettings(classes=5), {"c1": 4, "c2": 4}, "batch.classes is 5, but only 2"),
        (BatchSettings(synthetic_per_class=1), {"c1": 4, "c2": 4}, "no video of the synthetic splits"),
    ],
)
def test_batches_that_cannot_be(batch, real, match):
    with pytest.raises(InputError, match=match):
        make_pool(examples_of(**real), NONE, batch=batch)


@pytest.mark.parametrize("copies", [1, 2])
def test_an_epoch_goes_on_where_it_stopped(copies):
    batch = BatchSettings(per_class=2, background=2, per_epoch=4)
    pool = make_pool(examples_of(c0=6, c1=6, c2=6), NONE, batch=batch)

    def read(_, row):
        return np.broadcast_to(row[:, None, None, None], (len(row), 2, 2, 3)).astype(np.uint8)

    batches = KeyFrameBatches(read=read, pool=pool, batch=batch, seed=3, num_copies=copies)
    whole = [part.inputs["frames"][:, 0, 0, 0].tolist() for part in batches.epoch(2)]
    assert [part.inputs["frames"][:, 0, 0, 0].tolist() for part in batches.epoch(2, first=2)] == whole[2:]
    assert whole != [part.inputs["frames"][:, 0, 0, 0].tolist() for part in batches.epoch(3)]
    assert [len(part) for part in whole] == [6 * copies] * 4
    assert batches.num_items == 24 * copies
    targets = next(iter(batches.epoch(0))).targets.tolist()
    assert targets == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] if copies == 2 else sorted(targets) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("copies", [1, 2])
def test_crops_are_of_stored_frames_and_each_copy_has_its_own(copies):
    """Stored frames are 8 x 24 and know their columns; the encoder otherwise sees the 8 in the middle."""
    batch = BatchSettings(per_class=6, background=6, per_epoch=3)
    pool = make_pool(examples_of(c0=6, c1=6, c2=6), NONE, batch=batch)
    picture = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None], (1, 8, 24, 3))
    crop = build_crop(CropSettings(area=(0.5, 1.0)), Geometry(size=(8, 8), resize=8), seed=3)
    batches = KeyFrameBatches(
        read=None, pool=pool, batch=batch, seed=3, num_copies=copies, crop=crop, read_stored=lambda *_: picture
    )
    whole = [part.inputs["frames"] for part in batches.epoch(1)]
    assert whole[0].shape == (18 * copies, 8, 8, 3)
    columns = whole[0].float().mean(dim=(1, 3))
    assert columns.min() < 3
    assert columns.max() > 20
    if copies == 2:
        assert not torch.equal(whole[0][0], whole[0][1])
    assert torch.equal(next(iter(batches.epoch(1, first=2))).inputs["frames"], whole[2])


def test_nothing_to_change_changes_nothing():
    frames = torch.rand(3, 3, 8, 8)
    still = ImageAugmentSettings(brightness=0, contrast=0, saturation=0, blur=0)
    assert torch.allclose(augment_images(frames, still), frames, atol=1e-6)
    strong = ImageAugmentSettings(flip=0.5)
    changed = augment_images(frames, strong)
    assert changed.shape == frames.shape
    assert 0 <= changed.min() <= changed.max() <= 1
    assert not torch.allclose(changed, frames, atol=0.05)


class Wide(Encoder):
    """384 features, as ViT-S has."""

    kind, outputs, data_config = "image", ("pooled",), None

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 384, bias=False)

    def forward(self, x_BCHW):
        return {"pooled": self.model(x_BCHW.mean(dim=(2, 3)))}


def test_heads_have_the_sizes_of_the_paper():
    encoder = EmbeddingEncoder(Wide(), 128, num_features=384)
    own = sum(parameter.numel() for parameter in encoder.parameters())
    assert own - 3 * 384 == 49_536
    assert sum(parameter.numel() for parameter in ProjectionHead(128).parameters()) == 33_280
    rows = encoder.eval()(torch.rand(4, 3, 5, 5))["pooled"]
    assert rows.shape == (4, 128)
    assert rows.min() >= 0
    assert torch.allclose(rows.norm(dim=1), torch.ones(4))


def test_an_embedding_is_of_images():
    with pytest.raises(ValueError, match="outputs tokens"):
        EmbeddingEncoder(build_encoder("timm/test_vit", outputs=["tokens"]), 8, num_features=64)
