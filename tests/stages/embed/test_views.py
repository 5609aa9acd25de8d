"""Views of frames: the first is what the encoder sees without views, the others are drawn once a video."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from reelwright.stages.base.config import parse_config
from reelwright.stages.datasets.stored_rows import num_features, read_video
from reelwright.stages.embed.config import EmbedConfig
from reelwright.stages.embed.encoding.encoder import encoder_of
from reelwright.stages.embed.shared_videos import SharedEmbedding
from reelwright.stages.embed.views import views_of
from reelwright.stages.embed.work import run_items
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.spans import RowTimes
from reelwright.storage.errors import ConfigError, StoreError

from .conftest import Notes

MAPS = {"outputs": ["pooled", "layer2.map"], "views": {"num": 3}}


def of_video(project, digest, key):
    rows = project.rows(digest, key=key)
    return rows.output("pooled"), rows.output("layer2.map")


def test_the_first_view_is_the_frame_as_it_is_and_the_others_differ(three):
    three.embed(key="plain", outputs=MAPS["outputs"])
    ledger = three.embed(key="views", **MAPS)
    assert {row.status for row in ledger.values()} == {"ok"}
    for digest, num_rows in (("a", 5), ("b", 20), ("c", 11)):
        for plain, views in zip(of_video(three, digest, "plain"), of_video(three, digest, "views"), strict=True):
            assert views.shape == (num_rows, 3, *plain.shape[1:])
            assert np.allclose(views[:, 0], plain, atol=1e-5)
            assert not np.allclose(views[:, 1], plain, atol=1e-2)
            assert not np.allclose(views[:, 1], views[:, 2], atol=1e-2)
    assert np.array_equal(
        three.rows("b", key="plain").spans.start_seconds, three.rows("b", key="views").spans.start_seconds
    )
    assert EmbeddingStore(three.store.embeddings("views")).spec["views"] == 3


def test_views_hang_neither_on_batches_nor_on_where_work_stopped_nor_on_the_order_of_videos(three):
    whole = {"batch_size": 64, **MAPS}
    three.embed(key="whole", **whole)
    with pytest.raises(KeyboardInterrupt):
        three.embed(key="cut", reporter=Notes(stop_after=12), batch_size=4, shard_rows=8, **MAPS)
    run_items(
        replace(three.work(key="cut", batch_size=4, shard_rows=8, **MAPS), items=tuple(three.items[::-1])), Notes()
    )
    for digest in "abc":
        for once, again in zip(of_video(three, digest, "whole"), of_video(three, digest, "cut"), strict=True):
            assert np.allclose(once, again, atol=1e-4)


def test_processes_that_share_a_video_give_the_same_views(project):
    project.add("long", 24)
    how = {"shard_rows": 8, "decode": {"materialize": False, "workers": 1}, **MAPS}
    project.embed(key="alone", **how)
    shared = SharedEmbedding(project.work(key="shared", **how), Notes())
    shards = shared.begin()
    assert (shards.count, shards.missing) == (3, (0, 1, 2))
    for number in (2, 0, 1):
        assert shared.write(number, number + 1)
    shared.publish()
    assert np.allclose(
        project.rows("long", key="alone").output("pooled"),
        project.rows("long", key="shared").output("pooled"),
        atol=1e-5,
    )


def test_all_frames_of_a_video_are_cut_and_coloured_alike(project):
    """Frames that are all the same picture stay so in every view, and another seed gives other views."""
    project.add("a", 6)
    loaded = encoder_of(project.work(views={"num": 3}))
    picture = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    seen = _seen(loaded, np.repeat(picture, 6, axis=0))
    assert seen.shape == (6, 3, 32, 32, 3)
    assert (seen == seen[:1]).all()
    again = [_seen(loaded, np.repeat(picture, count, axis=0)) for count in (2, 4)]
    assert np.array_equal(np.concatenate(again), seen)
    other = encoder_of(project.work(views={"num": 3, "seed": 1}))
    assert np.array_equal(_seen(other, picture)[:, 0], seen[:1, 0])
    assert not np.array_equal(_seen(other, picture)[:, 1], seen[:1, 1])


def _seen(loaded, frames):
    from reelwright.stages.base.work import VideoItem
    from reelwright.stages.decode.source import FrameChunk

    item, numbers = VideoItem(digest="d", path="", video_id="d"), np.arange(len(frames))
    times = RowTimes(source_frame=numbers, pts_seconds=numbers * 1.0, stop_seconds=numbers + 1.0)
    chunk = FrameChunk(item=item, start_row=0, frames=frames, times=times)
    (found,) = views_of(loaded, where="embed").through(event for event in [chunk])
    return found.frames


def test_views_are_in_the_key_and_without_them_it_stays(three):
    values = {"frames": "f", "encoder": "timm/test_resnet", "weights": "none"}
    plain = parse_config(EmbedConfig, values, where="embed").spec()
    assert "views" not in plain
    specs = [
        parse_config(EmbedConfig, {**values, "views": views}, where="embed").spec()
        for views in ({"num": 2}, {"num": 3}, {"num": 2, "seed": 1}, {"num": 2, "augment": {"flip": 0.5}})
    ]
    assert all(first != second for place, first in enumerate(specs) for second in specs[:place])


def test_what_views_cannot_be_is_refused_and_nothing_averages_them(three):
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        EmbedConfig(frames="f", encoder="timm/test_resnet", weights="none", views={"num": 1})
    with pytest.raises(ValidationError, match="erasing and rand_augment_last are of training alone"):
        EmbedConfig(frames="f", encoder="e", views={"num": 2, "augment": {"erasing": {}}})
    video = three.work(encoder="torchvision/s3d", preprocess={}, views={"num": 2})
    with pytest.raises(ConfigError, match="views are of single frames, but torchvision/s3d sees clips"):
        views_of(encoder_of(video), where="embed")
    three.embed(key="views", **MAPS)
    with pytest.raises(StoreError, match="are 3 views each, of which no average is taken"):
        num_features([EmbeddingStore(three.store.embeddings("views"))], "layer2.map")
    with pytest.raises(StoreError, match="are 3 views each, of which no average is taken"):
        read_video([EmbeddingStore(three.store.embeddings("views"))], "a", output="pooled")
