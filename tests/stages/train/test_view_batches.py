"""Batches of views: what they hold, each video once an epoch, the same from any batch on and in several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reelwright.stages.datasets.feature_bank import FeatureBank
from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.datasets.sampling.two_views import ViewSampler
from reelwright.stages.fit.processes.world import World
from reelwright.stages.objectives.config import SequenceObjectiveSettings
from reelwright.stages.objectives.contract import batch_loss
from reelwright.stages.objectives.sequence import sequence_objective
from reelwright.stages.train.view_batches import ViewBatches
from reelwright.storage.arrays.spans import Spans

ROWS = [9, 30, 1, 0, 14, 40, 12]
NAMES = tuple("abcdefg")


def block(num_rows=ROWS):
    """A row says which video it is of, and which row it is."""
    rows = np.array([[video, row] for video, count in enumerate(num_rows) for row in range(count)], np.float32)
    offsets = np.cumsum([0, *num_rows], dtype=np.int64)
    spans = Spans(*(np.zeros(0),) * 2, *(np.zeros(0, np.int64),) * 2)
    return FeatureBank(torch.from_numpy(rows), offsets, (spans,) * len(num_rows), NAMES[: len(num_rows)])


def batches(*, batch_size=3, num_views=2, world=None, strategy="time_augment", num_contexts=1, **more):
    sampler = ViewSampler(
        strategy=strategy,
        views=ViewSettings(length=8, context_stride=3),
        num_views=num_views,
        num_contexts=num_contexts,
        seed=1,
    )
    options = {"world": world} if world else {}
    return ViewBatches(block=block(), sampler=sampler, batch_size=batch_size, names=NAMES, **options, **more)


def entries(batch):
    return {**batch.entries, "places": torch.from_numpy(batch.origin.positions)}


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("num_contexts", [1, 2])
def test_every_video_once_with_its_own_rows(num_views, num_contexts):
    source = batches(num_views=num_views, num_contexts=num_contexts)
    found = list(source.epoch(0))
    assert len(found) == source.num_batches == 2
    assert sum(len(batch) for batch in found) == source.num_items == 6 * num_views
    videos, places = [], []
    for batch in found:
        rows = batch.inputs["rows"].reshape(len(batch), 8, num_contexts, 2)
        video = rows[:, 0, 0, 0]
        assert (rows[..., 0] == video[:, None, None]).all()
        assert (rows[:, :, -1, 1] == batch.inputs["row_numbers"]).all()
        assert (rows[:, :, 0, 1] == (batch.inputs["row_numbers"] - 3 * (num_contexts - 1)).clamp(min=0)).all()
        assert batch.inputs["num_rows"].tolist() == [ROWS[int(each)] for each in video]
        assert video.reshape(-1, num_views).unique(dim=1).shape[1] == 1  # views side by side
        assert batch.inputs["mask"].any(1).all()
        assert (batch.targets == -1).all()
        places += batch.origin.positions.tolist()
        videos += video[::num_views].int().tolist()
        last = batch.inputs["row_numbers"][0].max()
        assert batch.about()[0] == f"video {NAMES[int(video[0])]!r} rows {batch.inputs['row_numbers'][0, 0]}-{last}"
    assert sorted(videos) == [0, 1, 2, 4, 5, 6]  # video 3 has no row
    assert places == list(range(6 * num_views))  # so that what is drawn for a view is its own


def test_a_video_of_one_row_has_no_pair():
    found = list(batches(strategy="anchor_positive").epoch(0))
    assert sum(map(len, found)) == batches(strategy="anchor_positive").num_items == 10
    assert all(batch.inputs["mask"].any(1).all() for batch in found)
    assert 1 not in torch.cat([batch.inputs["num_rows"] for batch in found])


def test_labels_go_with_their_rows():
    labels = [np.arange(count) % 5 for count in ROWS]
    for batch in batches(labels=labels).epoch(0):
        mask, numbers = batch.inputs["mask"], batch.inputs["row_numbers"]
        assert (batch.targets[mask] == numbers[mask] % 5).all()
        assert (batch.targets[~mask] == -1).all()


def test_an_epoch_goes_on_at_any_batch_and_epochs_differ():
    source = batches(batch_size=2)
    whole = [entries(batch) for batch in source.epoch(3)]
    for first in range(4):
        rest = [entries(batch) for batch in batches(batch_size=2).epoch(3, first=first)]
        assert len(rest) == 3 - first
        for a, b in zip(whole[first:], rest, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)
    numbers = [torch.cat([batch.inputs["row_numbers"] for batch in source.epoch(epoch)]) for epoch in (3, 4)]
    assert not torch.equal(*numbers)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_have_the_batches_of_one(size):
    """With 4 processes some have no video of a batch of 3, and a stand-in."""
    alone = [entries(batch) for batch in batches().epoch(0)]
    shares = [list(batches(world=World(rank, size)).epoch(0)) for rank in range(size)]
    for whole, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert {part.num_items for part in parts} == {len(whole["mask"])}
        counted = [entries(part) for part in parts if part.is_counted]
        for name, value in whole.items():
            assert torch.equal(torch.cat([part[name] for part in counted]), value)


def test_a_batch_has_videos_of_one_group():
    groups = [0, 1, 0, 1, 1, 0, 1]
    source = batches(batch_size=2, groups=groups, num_views=1)
    orders = []
    for epoch in range(6):
        found = [batch.inputs["rows"][:, 0, 0].int().tolist() for batch in source.epoch(epoch)]
        assert len(found) == source.num_batches == 4
        assert sorted(video for videos in found for video in videos) == [0, 1, 2, 4, 5, 6]
        assert all(len({groups[video] for video in videos}) == 1 for videos in found)
        orders.append([groups[videos[0]] for videos in found])
    assert len(set(map(tuple, orders))) > 1


BAD = {
    "batch_size": ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
    "labels": ({"labels": [np.zeros(9, np.int64)]}, "labels must be of every video, one a row"),
    "groups": ({"groups": [0, 1]}, "groups are of 2 videos, there are 7"),
}


@pytest.mark.parametrize(("options", "match"), BAD.values(), ids=BAD)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        batches(**options)


def speeds():
    """Ten videos of the same course in 2 features, at their own speeds, under noise in 6 others that is their own."""
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(10):
        count = int(rng.integers(40, 80))
        time = np.linspace(0, 1, count) ** rng.uniform(0.6, 1.6)
        course = np.stack([np.cos(3 * time), np.sin(3 * time)], 1)
        parts.append(np.concatenate([course, 2 * rng.normal(size=(1, 6)) + 0.3 * rng.normal(size=(count, 6))], 1))
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    spans = Spans(*(np.zeros(0),) * 2, *(np.zeros(0, np.int64),) * 2)
    return FeatureBank(torch.from_numpy(np.concatenate(parts)).float(), offsets, (spans,) * 10, tuple("abcdefghij"))


def misplaced(embed, bank):
    """How far apart, in shares of a video, a row and its nearest neighbour in another video are."""
    parts = [embed(bank.rows[a:b]) for a, b in zip(bank.offsets[:-1], bank.offsets[1:], strict=True)]
    found = []
    for i, one in enumerate(parts):
        for j, other in enumerate(parts):
            if i != j:
                nearest = torch.cdist(one, other).argmin(1) / len(other)
                found.append((nearest - torch.arange(len(one)) / len(one)).abs().mean())
    return float(torch.stack(found).mean())


def test_sequence_contrast_learns_time_from_views():
    """Without a label or a time, rows of other videos at the same point of the course come near each other."""
    bank = speeds()
    sampler = ViewSampler(strategy="time_augment", views=ViewSettings(length=24), seed=2)
    source = ViewBatches(block=bank, sampler=sampler, batch_size=5)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
    objective = sequence_objective(SequenceObjectiveSettings())
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=5e-3), []
    for epoch in range(60):
        for batch in source.epoch(epoch):
            outputs = {"embedding": nn.functional.normalize(network(batch.inputs["rows"]), dim=-1)}
            loss = batch_loss(objective, outputs, batch.entries, is_shared=False).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:4])
    with torch.no_grad():
        learned = misplaced(lambda rows: nn.functional.normalize(network(rows), dim=-1), bank)
        raw = misplaced(lambda rows: nn.functional.normalize(rows, dim=-1), bank)
    assert learned < 0.75 * raw
