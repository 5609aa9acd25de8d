"""What a manifest holds, counted by hand, without opening a video."""

from __future__ import annotations

import pytest

from reelwright.pipeline.config.adhoc import videos_block
from reelwright.pipeline.inspect.contents import contents_of, source_file
from reelwright.pipeline.plan.dataset import load_dataset
from reelwright.storage.errors import ConfigError
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes, VideoProbe, stamp
from tests.small_project import write_rows

VIDEOS = [
    ("a", "train", "cut", "d1", 2.0),
    ("b", "train", "pour", "d2", 4.0),
    ("c", "test", "cut", "d1", 2.0),
    ("d", "test", "", "d3", 6.0),
    ("e", "train", "", "d2", 4.0),
]


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files, probes = KnownFiles(tmp_path / ".reelwright/store/files.json"), {}
    for name, _, _, digest, seconds in VIDEOS:
        path = tmp_path / f"{name}.mp4"
        path.write_text(digest)
        files.add(path, digest, stamp(path))
        rate = 29.9701 if digest == "d1" else 25
        probes[digest] = VideoProbe(
            digest, duration_seconds=seconds, num_frames=9, fps=rate, height=48, width=64, codec="h264"
        )
    probes["d3"] = VideoProbe("d3", status="failed", cause="not_a_video")
    files.save()
    KnownProbes(tmp_path / ".reelwright/store/videos.json").add(probes)
    rows = [
        {"video_id": name, "path": f"{name}.mp4", "split": split, "label": label} for name, split, label, *_ in VIDEOS
    ]
    write_rows(tmp_path / "videos.csv", rows)
    return tmp_path


def test_counts(manifest):
    contents = contents_of(load_dataset(source_file("videos.csv", [])))
    train, test = contents.splits["train"], contents.splits["test"]
    assert (train.videos, train.usable, train.labelled, train.durations_seconds) == (3, 3, 2, (2, 4, 4))
    assert (test.videos, test.usable, test.labelled, test.total_seconds) == (2, 1, 1, 2)
    assert contents.labels == {"cut": {"train": 1, "test": 1}, "pour": {"train": 1}}
    assert contents.label_unit == "videos"
    assert contents.sizes == {"64x48": {"train": 3, "test": 1}}
    assert contents.rates == {"25": {"train": 2}, "29.97": {"train": 1, "test": 1}}
    assert [entry.videos for entry in contents.same] == [
        (("a", "train"), ("c", "test")),
        (("b", "train"), ("e", "train")),
    ]
    assert [entry.digest for entry in contents.leaks] == ["d1"]
    assert contents.plain()["leaks"] == 1


def test_segments_are_counted_in_seconds_too(manifest):
    segments = [
        {"video_id": "a", "start_seconds": 0, "stop_seconds": 1.5, "label": "cut"},
        {"video_id": "a", "start_seconds": 1.5, "stop_seconds": 2, "label": "cut"},
    ]
    write_rows(manifest / "segments.csv", segments)
    contents = contents_of(load_dataset(source_file("videos.csv", ["labels.segments=segments.csv"])))
    assert contents.labels == {"cut": {"train": 2}}
    assert contents.label_seconds == {"cut": {"train": 2.0}}
    assert contents.label_unit == "segments"


def test_a_folder_of_features(manifest):
    (manifest / "feats").mkdir()
    (manifest / "feats/a.npy").write_text("rows")
    assert source_file("feats", []).videos.features == "feats"
    assert source_file(".", []).videos.folder == "."


@pytest.mark.parametrize(
    ("source", "features", "source_of_videos"),
    [
        ("s3://lab/videos", {"features": "s3://lab/videos"}, {"folder": "s3://lab/videos"}),
        ("s3://lab/**/*.mp4", {"glob": "s3://lab/**/*.mp4"}, {"glob": "s3://lab/**/*.mp4"}),
    ],
)
def test_sources_at_urls(source, features, source_of_videos):
    assert source_file(source, []).videos.model_dump(exclude_unset=True) == source_of_videos
    assert videos_block(source) == source_of_videos
    assert videos_block(source, folder="features") == features
    assert videos_block("s3://lab/a.mp4") == {"glob": "s3://lab/a.mp4"}
    assert videos_block("s3://lab/a.npy", folder="features") == {"glob": "s3://lab/a.npy"}


def test_a_manifest_at_a_url(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("REELWRIGHT_CACHE", str(tmp_path / "cache"))
    url = f"file://{manifest}/videos.csv"
    videos = source_file(url, []).videos
    assert videos.manifest == url
    assert videos.splits == source_file("videos.csv", []).videos.splits


def test_no_such_source(manifest):
    with pytest.raises(ConfigError, match=r"'gone\.docx': no such manifest"):
        source_file("gone.docx", [])
