"""gc: what nothing reaches goes, and nothing else; tried on the small finished project."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from reelwright.cli.upkeep import parse_age, parse_bytes
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.gc import Limits, Sweep, collect, sweep
from reelwright.pipeline.upkeep.verify import verify
from reelwright.storage.errors import ConfigError, InputError
from reelwright.storage.files import replacing_folder
from reelwright.storage.integrity.garbage import delete
from reelwright.storage.locks.locks import using
from reelwright.storage.store import Store
from tests.small_project import put_back, read_rows, write_rows

NOW = Limits(guard_seconds=0.0)
DAY = 86_400.0


@pytest.fixture
def folder(restorable: Path) -> Path:
    put_back(restorable)
    (restorable / "other.yaml").unlink(missing_ok=True)
    return restorable


def opened(folder: Path, *overrides: str, name: str = "reelwright.yaml") -> Project:
    return Project.open(folder / name, overrides=overrides)


def swept(*projects: Project, limits: Limits = NOW, only_these: bool = False) -> Sweep:
    return sweep([project.file for project in projects], SilentObserver(), limits=limits, only_these=only_these)


def areas(found: Sweep) -> dict[str, int]:
    counts: dict[str, int] = {}
    for garbage in found.going:
        counts[garbage.kind] = counts.get(garbage.kind, 0) + 1
    return counts


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    for each in (path, *path.rglob("*")):
        os.utime(each, (then, then))


def test_all_that_is_reached_stays(folder: Path) -> None:
    assert swept(opened(folder)).going == ()
    assert swept(opened(folder), only_these=True).going == ()


def test_an_older_setting_goes_with_all_that_followed_from_it(folder: Path) -> None:
    """Its frames, embeddings and run; predictions and report stay until train has run, since their key waits for it."""
    changed = opened(folder, "frames.fps=2")
    found = swept(changed)
    assert areas(found) == {"frames": 1, "embeddings": 1, "runs": 1, "nodes": 5}
    assert [garbage.num_bytes for garbage in found.going] == sorted(
        (garbage.num_bytes for garbage in found.going), reverse=True
    )
    assert found.num_bytes == sum(garbage.num_bytes for garbage in found.going) > 0
    assert swept(opened(folder)).going == ()  # it only told
    delete(changed.file.store, found.going)
    assert not any(garbage.path.exists() for garbage in found.going)
    assert verify(changed.file, whole=True).is_whole
    assert swept(changed).going == ()


@pytest.mark.slow
def test_items_of_a_removed_video_go(folder: Path) -> None:
    rows = read_rows(folder / "videos.csv")
    segments = read_rows(folder / "segments.csv")
    project = opened(folder)
    gone = project.planner().dataset.digests["e"]
    try:
        write_rows(folder / "videos.csv", [row for row in rows if row["video_id"] != "e"])
        write_rows(folder / "segments.csv", [row for row in segments if row["video_id"] != "e"])
        assert opened(folder).run().exit_code == 0  # other keys of the tables; no item is done again
        found = swept(opened(folder))
        wanted = {"frames": 1, "embeddings": 1, "predictions": 2, "reports": 1, "nodes": 4, "frame_index": 1}
        assert areas(found) == wanted
        items = [garbage for garbage in found.going if garbage.ledger is not None]
        assert {garbage.ledger[1] for garbage in items if garbage.ledger} == {gone}
        delete(project.file.store, found.going)
        assert verify(opened(folder).file, whole=True).problems == ()
        assert opened(folder).run().nothing_to_do
    finally:
        write_rows(folder / "videos.csv", rows)
        write_rows(folder / "segments.csv", segments)
    again = {node.node: node.num_done for node in opened(folder).run().nodes if node.state == "ran"}
    assert again == {"frames": 1, "embed": 1, "predict": 1, "scores": 0}


def test_what_other_pipeline_files_left_stays_unless_given_up(folder: Path) -> None:
    text = (folder / "reelwright.yaml").read_text(encoding="utf-8")
    (folder / "other.yaml").write_text(text.replace("epochs: 2", "epochs: 3"), encoding="utf-8")
    assert opened(folder, name="other.yaml").run().exit_code == 0
    found = swept(opened(folder))
    assert found.going == ()
    assert [name.rsplit("-", 1)[0] for name in found.projects] == ["other"]
    given_up = {"runs": 1, "reports": 1, "predictions": 2, "nodes": 4}
    assert areas(swept(opened(folder), only_these=True)) == given_up
    assert swept(opened(folder), opened(folder, name="other.yaml"), only_these=True).going == ()


def test_age_budget_and_what_may_be_in_use(folder: Path) -> None:
    project = opened(folder, "frames.fps=2")
    store = project.file.store.root
    fresh = swept(project, limits=Limits())
    assert fresh.going == ()
    assert all("within the last hour" in why for _, why in fresh.kept)
    age(store / "frames", 40 * DAY)
    age(store / "runs", 20 * DAY)
    assert areas(swept(project, limits=Limits(older_than_seconds=30 * DAY))) == {"frames": 1}
    assert areas(swept(project, limits=Limits())) == {"frames": 1, "runs": 1}
    total = swept(project).store_bytes
    assert swept(project, limits=Limits(max_bytes=total)).going == ()
    assert areas(swept(project, limits=Limits(max_bytes=total - 1))) == {"frames": 1}


def test_what_a_process_is_writing_stays(folder: Path) -> None:
    """As a run that publishes predictions while somebody else's `gc --now` gives them up."""
    project = opened(folder)
    store = project.file.store
    key, other = project.planner().plan("predict").key, "0" * 32
    scratch = store.root / "scratch" / f"{key}.machine.rows"
    scratch.parent.mkdir(exist_ok=True)
    bare = folder / "bare.yaml"
    bare.write_text(project.file.path.read_text(encoding="utf-8").partition("  embed:")[0], encoding="utf-8")
    at_top, left = store.root / ".tmp-0123456789ab-videos.json", store.predictions(f".tmp-0123456789ab-{other}")

    def collected() -> set[Path]:
        found = collect([Project.open(bare).file], SilentObserver(), limits=NOW, only_these=True)
        return {garbage.path for garbage in found.going if garbage.kind == "leftovers"}

    try:
        for path in (scratch, at_top):
            path.write_bytes(b"half")
        left.mkdir()
        with using(store.locks, what="a run") as note:
            note({key})
            with replacing_folder(store.predictions(key)) as temporary:
                (temporary / "windows.parquet").write_bytes(b"half")
                assert collected() == {left}
                assert temporary.is_dir()
            assert (store.predictions(key) / "windows.parquet").read_bytes() == b"half"
            assert scratch.exists()
            assert at_top.exists()
        assert collected() == {scratch, at_top}
    finally:
        bare.unlink()


def test_weights_that_are_being_fetched_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to a run that says so before it fetches them."""
    project = opened(folder, "embed.weights=hub")
    store, going = project.file.store, list[Path]()
    path = store.weights(str(project.file.nodes["embed"].hub_weights()))
    half = path.with_name(f".tmp-0123456789ab-{path.name}")

    def fetch(_encoder: str, _store: Store) -> None:
        for written in (half, path):
            written.parent.mkdir(exist_ok=True)
            written.write_bytes(b"half")
            going.extend(garbage.path for garbage in swept(opened(folder), only_these=True).going)
        raise InputError("no network")

    monkeypatch.setattr("reelwright.stages.embed.encoding.fetch.fetch", fetch)
    assert project.run(until=["embed"]).exit_code == 1
    assert going == []
    assert {garbage.path for garbage in swept(opened(folder), only_these=True).going} == {half, path}


def test_links_and_what_is_not_ours_are_left_alone(folder: Path, tmp_path: Path) -> None:
    project = opened(folder)
    root = project.file.store.root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (root / "runs" / ("0" * 32)).symlink_to(outside)
    (root / "runs" / "notes").mkdir()
    (root / "mine.txt").write_text("mine")
    assert swept(project).going == ()
    shutil.move(root / "frames", tmp_path / "frames")
    (root / "frames").symlink_to(tmp_path / "frames")
    assert "frames" not in areas(swept(opened(folder, "frames.fps=2")))
    half = root / "runs" / ".tmp-0-x"
    half.mkdir()
    (half / "link").symlink_to(outside)
    found = swept(project)
    assert [garbage.path for garbage in found.going] == [half]
    delete(project.file.store, found.going)
    assert not half.exists()
    assert (outside / "file").read_text() == "mine"


def test_weights_that_no_node_names_go(folder: Path) -> None:
    """Unless another pipeline file may use them: of a file whose content was never noted that cannot be known."""
    project = opened(folder)
    store = project.file.store
    used, unused = store.weights("timm/test_resnet"), store.weights("timm/other")
    used.parent.mkdir()
    for path in (used, unused):
        path.write_bytes(b"weights")
    named = opened(folder, "embed.weights=hub")
    assert [garbage.path for garbage in swept(named).going if garbage.kind == "weights"] == [unused]
    (store.root / "projects" / "other-0").mkdir()
    assert "weights" not in areas(swept(named))


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 30 * DAY), ("12h", 43_200), ("1.5 w", 10.5 * DAY), ("90s", 90)], ids=str
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("50GB", 50 * 10**9), ("1.5 GiB", 3 * 2**29), ("7b", 7)], ids=str)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["30", "d", "3 y", "-1d", "inf d", "nan d"])
def test_wrong_ages(text: str) -> None:
    with pytest.raises(ConfigError, match="--older-than"):
        parse_age(text)


def test_frame_indexes_of_videos_that_are_gone_go_where_all_manifests_are_known(folder: Path) -> None:
    project = opened(folder)
    index = project.file.store.frame_index
    kept = {digest for digest in project.planner().dataset.digests.values() if digest is not None}
    for digest in (*kept, "0" * 32):
        (index / digest[:2]).mkdir(parents=True, exist_ok=True)
        (index / digest[:2] / f"{digest}.npz").write_bytes(b"index")
    assert swept(project, limits=Limits()).going == ()
    assert [garbage.path.stem for garbage in swept(project).going] == ["0" * 32]
    collect([project.file], SilentObserver(), limits=NOW)
    assert {path.stem for path in index.rglob("*.npz")} >= kept
    assert not (index / "00" / f"{'0' * 32}.npz").exists()
