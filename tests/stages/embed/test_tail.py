"""The ends of videos, and videos shorter than a clip, through the embed stage: which frames each row has really seen.

Frame i of a video is of one grey level, 40 + 6 i, and a row of the encoder below is the grey level of each frame of its
clip, so that rows tell what they were made of.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from torch import nn

from reelwright.models.encoders.base import DataConfig, Encoder
from reelwright.stages.embed import videos
from reelwright.stages.embed.encoding import encoder as encoder_module
from reelwright.stages.embed.shared_videos import SharedEmbedding
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.ledger.items import ItemLedger
from tests.stages.sampling.brute_force import clips_of

from .conftest import Notes


class _Grey(Encoder):
    """pooled (B, T): the mean of each frame of a clip, in levels of 0 to 255."""

    kind = "video"
    outputs = ("pooled",)
    data_config = DataConfig(
        size=(32, 32), resize=32, interpolation="bilinear", antialias=True, crop="center",
        mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), clip_length=4,
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1)
        nn.init.zeros_(self.model.weight)
        nn.init.zeros_(self.model.bias)

    def forward(self, x):
        return {"pooled": x.mean(dim=(1, 3, 4))}


@pytest.fixture
def grey(project, monkeypatch):
    """A project whose encoder is `_Grey`, decoding in chunks of five frames."""
    monkeypatch.setattr(encoder_module, "build_encoder", lambda *_, **__: _Grey())
    monkeypatch.setattr(videos, "CHUNK_BYTES", 5 * 32 * 32 * 3)
    return project


def add(project, digest, num_frames):
    path = project.root / f"{digest}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.height, stream.width, stream.pix_fmt, stream.time_base = 48, 64, "yuv420p", Fraction(1, 10)
        for number in range(num_frames):
            picture = np.full((48, 64, 3), 40 + 6 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return project.add_file(digest, path)


def embed(project, *, reporter=None, **settings):
    clip = {"length": 4, **settings.pop("clip", {})}
    return project.embed(reporter=reporter, preprocess={}, clip=clip, batch_size=3, **settings)


def seen(project, digest, *, key="emb"):
    """Frame numbers of each row, -1 where it is black."""
    levels = project.rows(digest, key=key).output("pooled")
    numbers = np.where(levels < 20, -1, np.round((levels - 40) / 6)).astype(int)
    assert np.all((levels < 20) | (np.abs(levels - 40 - 6 * numbers) < 2.5))
    return numbers.tolist()


def assert_spans(project, digest, wanted, *, key="emb"):
    spans = project.rows(digest, key=key).spans
    assert spans.source_start.tolist() == [clip[0] for clip in wanted]
    assert spans.source_stop.tolist() == [clip[-1] + 1 for clip in wanted]
    np.testing.assert_allclose(spans.start_seconds, [clip[0] / 10 for clip in wanted])
    np.testing.assert_allclose(spans.stop_seconds, [(clip[-1] + 1) / 10 for clip in wanted])


TAILS = {
    "as it is, frame 8 was in no row": ({"hop": 3}, [0, 3, 5]),
    "on the grid anyway": pytest.param({"hop": 5}, [0, 5], marks=pytest.mark.slow),
    "not wanted": ({"hop": 3, "to_end": False}, [0, 3]),
    "hop above length": ({"hop": 8}, [0, 5]),
}


@pytest.mark.parametrize(("clip", "starts"), TAILS.values(), ids=TAILS)
def test_the_last_clip_ends_with_the_last_frame(grey, clip, starts):
    add(grey, "a", 9)
    notes = Notes()
    row = embed(grey, clip=clip, reporter=notes)["a"]
    wanted = [list(range(start, start + 4)) for start in starts]
    assert (row.status, row.rows) == ("ok", len(starts))
    assert seen(grey, "a") == wanted
    assert_spans(grey, "a", wanted)
    left = 9 - len({frame for clip in wanted for frame in clip})
    assert row.message.startswith(f"{left} of 9 frames are in no clip; " if left else "")
    assert bool(row.message) == bool(left)
    warned = [note for note in notes.notes if note.startswith("warning")]
    assert [note.split(":")[1].strip().split(" video")[0] for note in warned] == (
        [f"{left} of 9 frames of 1"] if left else []
    )
    stored = EmbeddingStore(grey.store.embeddings("emb")).spec["clip"]
    assert stored["to_end"] == clip.get("to_end", True)


SHORT = {
    "repeat": ({}, [[0, 1, 2, 2]], [[0, 1, 2]]),
    "repeat, dilation": pytest.param({"dilation": 2}, [[0, 2, 2, 2]], [[0, 2]], marks=pytest.mark.slow),
    "pad": pytest.param({"short": "pad"}, [[0, 1, 2, -1]], [[0, 1, 2]], marks=pytest.mark.slow),
    "pad, dilation": ({"short": "pad", "dilation": 2}, [[0, 2, -1, -1]], [[0, 2]]),
}


@pytest.mark.parametrize(("clip", "rows", "spans"), SHORT.values(), ids=SHORT)
def test_a_video_shorter_than_a_clip(grey, clip, rows, spans):
    add(grey, "a", 3)
    row = embed(grey, clip=clip)["a"]
    assert (row.status, row.rows, row.message) == ("ok", 1, "")
    assert seen(grey, "a") == rows
    assert_spans(grey, "a", spans)


def test_short_videos_are_left_out_with_a_word(grey):
    add(grey, "short", 3)
    add(grey, "long", 6)
    notes = Notes()
    ledger = embed(grey, clip={"short": "leave_out"}, reporter=notes)
    assert (ledger["long"].status, ledger["long"].rows) == ("ok", 2)
    assert (ledger["short"].status, ledger["short"].cause) == ("skipped", "too_short")
    assert ledger["short"].message == "3 frames are fewer than the 4 of a clip; set clip.short: pad or repeat"
    assert EmbeddingStore(grey.store.embeddings("emb")).digests() == ["long"]
    (warning,) = [note for note in notes.notes if note.startswith("warning")]
    assert warning.startswith("warning: 1 video(s) have fewer frames than the 4 of a clip and are left out: short.mp4")


@pytest.mark.parametrize("stop_after", [*(pytest.param(frames, marks=pytest.mark.slow) for frames in (6, 12, 18)), 22])
def test_an_interrupted_video_has_its_last_clip_too(grey, stop_after):
    add(grey, "a", 24)
    settings = {"clip": {"hop": 3}, "shard_rows": 2, "deterministic": True}
    embed(grey, key="whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        embed(grey, reporter=Notes(stop_after=stop_after), **settings)
    embed(grey, **settings)
    wanted = clips_of(24, {"length": 4, "hop": 3, "dilation": 1, "to_end": True, "short": "repeat"})
    assert len(wanted) == 8
    assert seen(grey, "a") == seen(grey, "a", key="whole") == wanted
    assert_spans(grey, "a", wanted)


@pytest.mark.slow
def test_shards_of_several_processes_are_those_of_one(grey):
    """The last row, off the grid, is alone in the last shard; whoever publishes says what is in no row."""
    add(grey, "a", 26)
    settings = {"clip": {"length": 4, "hop": 7}, "shard_rows": 2, "preprocess": {}, "batch_size": 3}
    grey.embed(key="whole", **settings)
    work = grey.work(**settings)
    first, second = (SharedEmbedding(work, Notes()) for _ in range(2))
    assert first.begin().count == 3
    assert second.look().missing == (0, 1, 2)
    assert second.write(2, 3)
    assert second.write(1, 2)
    assert first.look().missing == (0,)
    assert first.write(0, 1)
    notes = second._reporter
    second.publish()
    wanted = clips_of(26, {"length": 4, "hop": 7, "dilation": 1, "to_end": True, "short": "repeat"})
    assert [clip[0] for clip in wanted] == [0, 7, 14, 21, 22]
    assert seen(grey, "a") == seen(grey, "a", key="whole") == wanted
    assert_spans(grey, "a", wanted)
    rows = [ItemLedger(grey.store.node(key)).load()["a"] for key in ("emb", "whole")]
    assert rows[0].message == rows[1].message == "9 of 26 frames are in no clip; clip.hop: 4 or less takes them in"
    assert notes.notes[-1] == f"warning: a.mp4: {rows[0].message}"
