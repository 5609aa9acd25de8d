"""Features out: `embed --videos DIR --out DIR --to FORM` without a pipeline file, and `export` of a node."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from typer.testing import CliRunner

from reelwright import Project
from reelwright.cli.main import app
from reelwright.pipeline.inspect.export import ExportRequest, export_node
from reelwright.stages.export.embeddings import axis_names
from reelwright.storage.errors import ConfigError, StoreError


def _embed(*arguments: str) -> tuple[int, str]:
    given = ("weights=none", "batch_size=8", "channels_last=false", "frames.fps=5", "frames.short_side=48")
    settings = [part for setting in given for part in ("-S", setting)]
    result = CliRunner().invoke(
        app, ["embed", "--encoder", "timm/test_resnet", *settings, *arguments], catch_exceptions=False
    )
    return result.exit_code, result.stdout


def test_a_folder_of_videos_becomes_a_folder_of_arrays(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are unique, failures are said, and a second call embeds only what is new."""
    monkeypatch.chdir(tmp_path)
    for name in ("x/a", "y/a"):
        Path("videos", name).parent.mkdir(parents=True)
        shutil.copyfile(finished / f"{'d' if name[0] == 'x' else 'e'}.mp4", f"videos/{name}.mp4")
    Path("videos/bad.mp4").write_text("no video")
    code, text = _embed("--videos", "videos", "--out", "out")
    assert code == 3
    assert "not_a_video" in text
    assert text.splitlines()[-1].startswith("out: pooled of 2 videos, a .npy each")
    rows = Project(finished)["embed"]
    with Path("out/manifest.csv").open() as file:
        listed = {row["video_id"]: row for row in csv.DictReader(file)}
    assert {name: row["path"] for name, row in listed.items()} == {"x/a": "x_a.npy", "y/a": "y_a.npy"}
    for name, source in (("x_a", "d"), ("y_a", "e")):
        np.testing.assert_allclose(np.load(f"out/{name}.npy"), rows[source].rows, atol=1e-3)
    with Path("out/times.csv").open() as file:
        times = [row for row in csv.DictReader(file) if row["video_id"] == "x/a"]
    assert [float(row["start_seconds"]) for row in times] == rows["d"].times[:, 0].tolist()
    Path("videos/bad.mp4").unlink()
    shutil.copyfile(finished / "a.mp4", "videos/new.mp4")
    code, text = _embed("--videos", "videos", "--out", "out")
    assert code == 0, text
    line = next(line.split() for line in text.splitlines() if line.startswith("embed "))
    assert line[2:5] == ["ran", "3", "1"]
    assert sorted(path.name for path in Path("out").glob("*.npy")) == ["new.npy", "x_a.npy", "y_a.npy"]


def test_where_every_video_failed_nothing_is_written_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    Path("videos/bad.mp4").write_text("no video")
    with pytest.raises(StoreError, match="embed has no rows of any video"):
        _embed("--videos", "videos", "--out", "out")
    assert not Path("out").exists()


def test_parquet_and_zarr_hold_rows_and_times(finished: Path, tmp_path: Path) -> None:
    project = Project(finished)
    rows = project["embed"]["d"]
    for form in ("parquet", "zarr"):
        assert export_node(project, ExportRequest(node="embed", form=form, folder=tmp_path / form)) == 5
    table = pq.read_table(tmp_path / "parquet" / "d.parquet")
    np.testing.assert_array_equal(np.stack(table["pooled"].to_numpy()), rows.rows)
    group = zarr.open_group(tmp_path / "zarr" / "d.zarr", mode="r")
    np.testing.assert_array_equal(group["pooled"][:], rows.rows)
    assert group.attrs["video_id"] == "d"
    for found in (table["stop_seconds"].to_numpy(), group["stop_seconds"][:]):
        np.testing.assert_array_equal(found, rows.times[:, 1])


@pytest.mark.parametrize(
    ("shape", "of_views", "names"),
    [
        ((8,), False, ["feature"]),
        ((5, 8), False, ["token", "feature"]),
        ((2, 8), True, ["view", "feature"]),
        ((2, 8, 4, 4), True, ["view", "channel", "height", "width"]),
    ],
)
def test_axes_of_rows_and_of_their_views_have_names(shape: tuple[int, ...], of_views: bool, names: list[str]) -> None:
    assert list(axis_names(shape, of_views=of_views)) == names


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for place in (".", str(tmp_path / "empty")):
        with pytest.raises(ConfigError, match=r"is the working folder.*give a folder of its own, such as"):
            _embed("--videos", "..", "--out", place)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "out"], "are of --videos"),
        (["--videos", ".", "--to", "npy"], "give their folder"),
        (["--videos", ".", "--out", "out", "--to", "nyp"], "Did you mean 'npy'"),
        (["--videos", ".", "--out", "."], "no export of ours"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").touch()
    with pytest.raises(ConfigError, match=message):
        _embed(*arguments)
