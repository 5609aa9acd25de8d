"""The commands about data, as a person types them."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_commands import reelwright
from tests.small_project import write_video


def picture_size(path):
    with Image.open(path) as image:
        return image.size


@pytest.mark.slow
def test_prepare_show_sheet_import_export(tmp_path):
    for number, name in enumerate("abc"):
        (tmp_path / "set").mkdir(exist_ok=True)
        write_video(tmp_path / f"set/{name}.mp4", seed=number)
    (tmp_path / "set/c.mp4").write_bytes((tmp_path / "set/a.mp4").read_bytes())
    (tmp_path / "set/train.csv").write_text("a.mp4 cut\nb.mp4 pour\ngone.mp4 pour\n")
    (tmp_path / "set/val.csv").write_text("c.mp4 cut\n")
    prepared = reelwright(tmp_path, "prepare", "csv", "--root", "set", "--out", "tables")
    assert prepared.returncode == 3, prepared.stderr
    assert "missing: 1\n  gone.mp4" in prepared.stdout
    assert "a leak from train to val" in prepared.stdout

    shown = reelwright(tmp_path, "data", "show", "tables/manifest.csv", "--picture", "all.png", "--exit-code")
    assert shown.returncode == 1, shown.stderr
    assert "leak: a (train), c (val)" in shown.stdout
    assert picture_size(tmp_path / "all.png")[0] > 1000
    write_video(tmp_path / "set/long.mp4", seed=9, num_frames=60)
    lengths = [line.split() for line in reelwright(tmp_path, "data", "show", "set/*.mp4").stdout.splitlines()]
    assert next(line for line in lengths if line[:1] == ["train"])[-6:] == ["2.0", "s", "2.0", "s", "6.0", "s"]
    two = reelwright(tmp_path, "data", "show", "set/[a,l]*.mp4").stdout
    assert next(line for line in two.splitlines() if line.startswith("train")).endswith("2.0 s   4.0 s    6.0 s")
    machine = reelwright(tmp_path, "data", "show", "tables/manifest.csv", "--json")
    assert json.loads(machine.stdout)["labels"] == {"cut": {"train": 1, "val": 1}, "pour": {"train": 1}}
    sheet = reelwright(
        tmp_path, "data", "sheet", "b", "--videos", "tables/manifest.csv", "--out", "b.png", "--frames", "6"
    )
    assert sheet.stdout == "b: 6 frames in b.png\n", sheet.stderr
    assert picture_size(tmp_path / "b.png") == (12 * 2 + 6 * 128 - 8, 44 + 144 + 12)

    np.savez(tmp_path / "all.npz", a=np.eye(4), b=np.zeros((6, 4)))
    imported = reelwright(tmp_path, "import-features", "all.npz", "--members", "feats", "--fps", "2")
    assert imported.returncode == 0, imported.stderr
    assert "2 arrays, 2 new or changed" in imported.stderr
    again = reelwright(tmp_path, "import-features", "feats", "--fps", "2")
    assert again.stdout == "nothing to do: all 1 nodes are up to date\n"
    (tmp_path / "reelwright.yaml").write_text("videos: {features: feats}\nstages: {feats: {uses: features, fps: 2}}\n")
    exported = reelwright(tmp_path, "export", "feats", "--to", "webdataset", "--out", "shards")
    assert exported.stdout == "feats: 2 videos as webdataset in shards\n", exported.stderr


TOLD = {
    "older name": (["import-features", "feats", "--stride", "2"], "'stride' is called 'hop' now"),
    "no rate": (["import-features", "feats"], "give exactly one of fps, times and times_key"),
    "no root": (["prepare", "hmdb51"], "give --root FOLDER. HMDB51"),
    "no such set": (["prepare", "hmdb52", "--root", "."], "Did you mean 'hmdb51'"),
    "no such form": (["export", "feats", "--to", "webdatset", "--out", "x"], "Did you mean 'webdataset'"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), TOLD.values(), ids=TOLD)
def test_mistakes_are_told(tmp_path, arguments, message):
    (tmp_path / "feats").mkdir()
    np.save(tmp_path / "feats/a.npy", np.eye(2))
    (tmp_path / "reelwright.yaml").write_text("videos: {features: feats}\nstages: {feats: {uses: features, fps: 2}}\n")
    found = reelwright(tmp_path, *arguments)
    assert found.returncode == 2
    assert message in found.stderr


def test_status_names_what_is_left_out_and_the_row_of_a_table_that_cannot_be_read(tmp_path):
    (tmp_path / "feats").mkdir()
    for name in (b"a.npy", b"b.npy.part", b"._a.npy", b"caf\xe9.npy"):
        with (tmp_path / "feats" / os.fsdecode(name)).open("wb") as file:
            np.save(file, np.zeros((4, 2)))
    pipeline = "videos: {features: feats}\nlabels: {rows: rows.csv}\nstages: {feats: {uses: features, fps: 1}}\n"
    (tmp_path / "reelwright.yaml").write_text(pipeline)
    (tmp_path / "rows.csv").write_bytes("video_id;frame;label\na;0;fällt\n".encode())
    shown = reelwright(tmp_path, "status")
    assert shown.returncode == 0, shown.stderr
    assert "1 videos (train 1" in shown.stdout
    assert r"left out: caf\xe9.npy: not UTF-8" in shown.stdout
    assert "left out: b.npy.part: named as a download that has not ended" in shown.stdout
    assert "left out: ._a.npy: hidden" in shown.stdout

    (tmp_path / "rows.csv").write_bytes("video_id,frame,label\na,0,fällt\n".encode("cp1252"))
    refused = reelwright(tmp_path, "status")
    assert refused.returncode == 2
    assert "rows.csv:2: byte 6 of the row (0xE4) is not UTF-8" in refused.stderr
    assert "Traceback" not in refused.stderr
