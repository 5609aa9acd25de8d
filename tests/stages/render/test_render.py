"""Render in a pipeline: films and pictures of any pair, what is left out, and what an interrupted run had made."""

from __future__ import annotations

import json
from typing import get_args

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.models.metrics.probes.alignment import ALIGNMENTS
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.base.config import parse_config
from reelwright.stages.base.video_writer import VideoWriter
from reelwright.stages.base.work import InputRef, Work
from reelwright.stages.render import alignment
from reelwright.stages.render import work as render_work
from reelwright.stages.render.alignment import film_fps, poster
from reelwright.stages.render.config import OfPredictions, RenderConfig
from reelwright.stages.render.work import DRAWN, run
from reelwright.storage.errors import ConfigError, StageError
from reelwright.storage.tables.annotations import Annotation
from tests.storage.test_remote import machines

__all__ = ["machines"]

KEY = "r" * 32


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], (
            float(container.streams.video[0].average_rate)
        )


def project(folder, *lines):
    text = (folder / "reelwright.yaml").read_text(encoding="utf-8")
    kept = text[: text.index("  train:\n")]
    (folder / "reelwright.yaml").write_text(kept + "".join(f"  {line}\n" for line in lines), encoding="utf-8")
    return Project.open(folder / "reelwright.yaml")


def test_every_kind_is_drawn():
    of_predictions = RenderConfig(predictions="p", against="q").what
    assert set(DRAWN) == {*RenderConfig(embeddings="e").what, *of_predictions}
    assert set(get_args(OfPredictions)) == set(of_predictions)


def test_in_a_pipeline(copied):
    """d and e are of the test split, a and b of train: they are named."""
    opened = project(copied, "pictures: {uses: render, embeddings: embed, pairs: [[b, e], [d, a]], height: 96}")
    result = opened.run()
    assert result.exit_code == 0
    (found,) = [each for each in result.nodes if each.node == "pictures"]
    assert found.outputs == {"num_pictures": 8, "num_films": 4, "num_left_out": 0}
    folder = opened.report("pictures")
    listed = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    assert sorted(listed["files"]) == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.parent != folder
    )
    (film,) = (folder / "alignment").glob("b-e-*.mp4")
    pictures, fps = frames_of(film)
    assert (len(pictures), fps) == (10, 5.0)  # a row of b each, at its own pace
    assert pictures[0].shape == (96 + 2 * 24 + 8, 3 * 160 + 2 * 4, 3)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f'href="alignment/{film.name}"' in page
    assert "<script" not in page
    assert opened.run().nothing_to_do
    shown = CliRunner().invoke(app, ["report", "--config", str(copied / "reelwright.yaml")])
    assert shown.output.strip() == f"pictures: {folder / 'index.html'}"


def test_a_film_shows_what_belongs_together(copied):
    """Bright ground first, blue then: in every panel the same, also where the key is asked for the other way round."""
    opened = project(
        copied,
        "pictures: {uses: render, embeddings: embed, what: [alignment], pairs: [[d, e]], queries: [d], others: 1}",
    )
    assert opened.run().exit_code == 0
    films = sorted((opened.report("pictures") / "alignment").iterdir())
    assert len(films) == 3  # a pair, and d with one other by each method
    for film in films:
        pictures, _ = frames_of(film)
        for picture in pictures:
            height, width = picture.shape[:2]
            panels = np.split(picture[24 : 24 + 240], [244, 488], axis=1)[: 3 if width > 500 else 2]
            assert height == 296
            is_blue = [panel.mean(axis=(0, 1))[2] > panel.mean(axis=(0, 1))[0] + 20 for panel in panels]
            assert len(set(is_blue)) == 1


def test_the_poster_of_a_film_is_its_middle(tmp_path):
    with VideoWriter(tmp_path / "film.mp4", size=(16, 16), fps=5) as writer:
        for shade in range(0, 240, 20):
            writer.add(np.full((16, 16, 3), shade, np.uint8))
    assert np.asarray(poster(tmp_path / "film.mp4")).mean() == pytest.approx(120, abs=12)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pairs: [[a, f]]", r"stages.pictures.pairs: there is no video 'f'\."),
        ("queries: [bb]", r"stages.pictures.queries: there is no video 'bb'\. Did you mean 'b'"),
        ("splits: [tset]", r"splits: 'tset' is no split"),
        ("pairs: [[a, a]]", r"pairs: 'a' is paired with itself"),
        ("what: [films]", "what"),
        ("what: [strip, strip]", "what must not repeat"),
    ],
)
def test_mistakes_are_told_before_any_work(copied, line, message):
    with pytest.raises(ConfigError, match=message):
        project(copied, f"pictures: {{uses: render, embeddings: embed, {line}}}").run()


def test_what_an_interrupted_run_made_is_kept(copied, monkeypatch):
    """The film is whole when drawing breaks off; the next run makes the rest alone, a forced one all of it."""
    opened = project(copied, "pictures: {uses: render, embeddings: embed, what: [alignment, strip]}")
    made = []

    def written(path, scene, **names):
        made.append(names["query"])
        return alignment.write_pair(path, scene, **names)

    def broken(path, scene):
        raise OSError("no more")

    monkeypatch.setattr(render_work, "write_pair", written)
    with monkeypatch.context() as patched:
        patched.setattr(render_work, "write_strips", broken)
        assert opened.run().exit_code == 1
    (film,) = (copied / ".reelwright").rglob("pictures/*/alignment/d-e-????????.mp4")
    assert made == ["d"]
    before = film.stat().st_mtime_ns
    assert opened.run().exit_code == 0
    assert made == ["d"]
    assert film.stat().st_mtime_ns == before
    assert opened.run(force="pictures").exit_code == 0
    assert made == ["d", "d"]
    assert film.stat().st_mtime_ns > before


@pytest.mark.slow
def test_frames_that_were_never_stored_come_from_the_files(copied):
    opened = project(
        copied,
        "streamed: {uses: decode, fps: 5, short_side: 40, workers: 1, materialize: false}",
        "other: {uses: embed, frames: streamed, encoder: timm/test_resnet, weights: none, channels_last: false}",
        "pictures: {uses: render, embeddings: other, what: [alignment, retrieval]}",
    )
    result = opened.run()
    assert result.exit_code == 0
    assert result.nodes[-1].outputs == {"num_pictures": 1, "num_films": 3, "num_left_out": 0}
    (film,) = (opened.report("pictures") / "alignment").glob("d-e-????????.mp4")
    pictures, _ = frames_of(film)
    assert [picture[24:264, :240, 2].mean() > picture[24:264, :240, 0].mean() + 20 for picture in pictures] == (
        [False] * 5 + [True] * 5
    )


@pytest.mark.slow
def test_in_a_bucket(copied, machines):
    """Frames, rows and pictures lie in a bucket: drawn by one machine from what another made, looked at by a third."""
    text = (copied / "reelwright.yaml").read_text(encoding="utf-8")
    (copied / "reelwright.yaml").write_text(f"store: {machines.url}\n{text}", encoding="utf-8")
    lines = ["pictures: {uses: render, embeddings: embed}", "probed: {uses: probe, embeddings: embed, fractions: [1]}"]
    project(copied, *lines)
    machines.use("one")
    assert Project.open(copied / "reelwright.yaml").run(until="embed").exit_code == 0
    machines.use("two")
    opened = Project.open(copied / "reelwright.yaml")
    assert opened.run().exit_code == 0
    assert verify(opened.file, whole=True).problems == ()
    drawn = {path.relative_to(machines.bucket): path.read_bytes() for path in machines.bucket.glob("pictures/*/*/*.*")}
    assert len(drawn) == 8
    machines.use("three")
    opened = Project.open(copied / "reelwright.yaml")
    assert opened.run().nothing_to_do
    folder = opened.report("pictures")
    copies = {path.relative_to(folder.parents[1]): path.read_bytes() for path in folder.glob("*/*.*")}
    assert copies == drawn
    assert (opened.report("probed") / "report.html").exists()


def test_an_altered_picture_is_noticed_and_drawn_again(copied):
    opened = project(copied, "pictures: {uses: render, embeddings: embed, what: [similarity, strip]}")
    assert opened.run().exit_code == 0
    folder = opened.report("pictures")
    assert verify(opened.file, whole=True).problems == ()
    (picture,) = (folder / "strip").iterdir()
    content = picture.read_bytes()
    picture.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert [(each.path, each.kind) for each in verify(opened.file).problems if each.is_wrong] == [(picture, "altered")]
    mended = repair(opened.file, SilentObserver())
    assert [result.node for result in mended.results] == ["pictures"]
    assert picture.read_bytes() == content
    assert mended.problems == verify(opened.file, whole=True).problems == ()


def work_of(toy, **config):
    return Work(
        node="pictures",
        stage="render",
        key=KEY,
        config={"embeddings": "emb", **config},
        spec={},
        store=str(toy.root),
        inputs={"embeddings": (InputRef(node="emb", stage="features", key="emb"),)},
        payload=toy.payload(classes=["one", "two"]),
    )


def add(toy, digest, num_rows, split="test"):
    rows = np.random.default_rng(num_rows).normal(size=(num_rows, 5)).astype(np.float32)
    toy.write("emb", digest, rows)
    toy.add(digest, split, Annotation(), video_id=digest)


def test_rows_without_frames_or_labels(toy):
    """Rows that were imported: there are no frames, so that films and grids are left out, and it is said why."""
    for name, num_rows in (("x", 12), ("y", 9)):
        add(toy, name, num_rows)
    toy.videos[0]["path"] = "x.npy"
    assert run(work_of(toy), toy.reporter) == {"num_pictures": 4, "num_films": 0, "num_left_out": 4}
    left = json.loads((toy.store.output("pictures", KEY) / "pictures.json").read_text(encoding="utf-8"))["left_out"]
    gone = "its frames are not stored, and there is no video file any more"
    assert left["retrieval: x"] == f"x: there is a file of features, and no video; y: {gone}"
    assert f"alignment: x and y is left out: {left['alignment: x and y']}" in toy.reporter.notes
    page = (toy.store.output("pictures", KEY) / "index.html").read_text(encoding="utf-8")
    assert "alignment: x and y: x: there is a file of features" in page


def test_one_video_of_one_row(toy):
    add(toy, "x", 1)
    assert run(work_of(toy), toy.reporter) == {"num_pictures": 1, "num_films": 0, "num_left_out": 4}
    assert "similarity is left out: it takes two videos" in toy.reporter.notes
    with pytest.raises(StageError, match=r"pictures: nothing can be drawn\. it takes two videos"):
        run(work_of(toy, what=["retrieval"]), toy.reporter)
    add(toy, "y", 1)
    assert run(work_of(toy), toy.reporter)["num_pictures"] == 4


def test_videos_that_are_too_long_to_be_warped_are_refused(toy, monkeypatch):
    for name in "xy":
        add(toy, name, 40)

    def too_long(*_rows, **_options):
        raise ValueError("40 by 40 rows cannot be warped.")

    monkeypatch.setitem(ALIGNMENTS, "dtw", too_long)
    with pytest.raises(StageError, match=r"40 by 40 rows cannot be warped\. Set stride to take every so many rows"):
        run(work_of(toy, what=["similarity"]), toy.reporter)


def test_rows_that_are_not_numbers(toy):
    toy.write("emb", "x", np.full((3, 2), np.nan, np.float32))
    toy.add("x", "test", Annotation(), video_id="x")
    with pytest.raises(StageError, match=r"pictures: video 'x': 3 of 3 rows hold NaN or infinity\.$"):
        run(work_of(toy), toy.reporter)


def test_every_so_many_rows(toy, monkeypatch):
    for name in "xy":
        add(toy, name, 41)
    seen = []
    monkeypatch.setitem(
        ALIGNMENTS, "dtw", lambda query, key, **_: seen.append((query, key)) or np.zeros(len(query), int)
    )
    run(work_of(toy, what=["similarity"], stride=4, alignments=["dtw"]), toy.reporter)
    assert [(len(query), len(key)) for query, key in seen] == [(11, 11)]


def test_no_video_is_there(toy):
    add(toy, "x", 3, split="train")
    with pytest.raises(StageError, match="no video of the splits test has rows"):
        run(work_of(toy), toy.reporter)
    with pytest.raises(StageError, match="pairs: 'q' has no rows; look at the embed node"):
        run(work_of(toy, pairs=[["x", "q"]]), toy.reporter)


@pytest.mark.parametrize(
    ("times", "speed", "fps"),
    [
        ([0, 0.2, 0.4], 1.0, 5.0),
        ([0, 0.2, 0.4], 2.0, 10.0),
        ([0, 60.0], 1.0, 1.0),
        ([0, 1e-3], 1.0, 30.0),
        ([3], 1, 1),
        ([0, 0, 0, 1], 1.0, 3.0),  # a rate above the video's own repeats frames
        ([2, 2], 1.0, 1.0),
    ],
)
def test_pace(times, speed, fps):
    assert film_fps(np.array(times, float), speed=speed) == pytest.approx(fps)


def test_settings():
    config = parse_config(RenderConfig, {"embeddings": "emb"}, where="pictures")
    assert config.wanted_splits() == ("test",)
    assert config.named_splits() == {"splits": (("test",), True)}
    named = parse_config(RenderConfig, {"embeddings": "emb", "pairs": [["a", "b"]]}, where="pictures")
    assert named.wanted_splits() is None
    assert (
        named.spec() == named.model_copy(update={"num_pairs": 7}).spec()
    )  # pairs are named: their number says nothing
    assert named.spec() != config.spec()
