"""Every small file of a store, damaged: a cache is made anew with a note, the rest is a message with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reelwright.cli.main import app
from reelwright.pipeline.executors.progress_file import read_progress
from reelwright.pipeline.project import Project, SilentObserver
from reelwright.pipeline.upkeep.repair import repair
from reelwright.pipeline.upkeep.verify import verify
from reelwright.stages.base.work import Reporter
from reelwright.stages.embed.encoding.tuning import Choice, remembered
from reelwright.storage.arrays.embeddings import EmbeddingStore
from reelwright.storage.arrays.frames import FrameStore
from reelwright.storage.errors import ConfigError, ReelwrightError, StoreError
from reelwright.storage.files import write_json, write_sealed
from reelwright.storage.ledger.items import ItemLedger
from reelwright.storage.ledger.records import LAYOUT
from reelwright.storage.locks.locks import exclusive, holdings
from reelwright.storage.store import Store
from tests.small_project import put_back

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "other bytes": lambda content: b"\xff\xfe\x00" * len(content),
    "other JSON": lambda _: b"[1]",
}
COMMANDS = (
    ("status",),
    ("explain", "train"),
    ("explain", "embed", "a"),
    ("logs", "a"),
    ("logs",),
    ("logs", "embed"),
    ("compare",),
    ("run", "-n"),
    ("gc",),
)
CACHES = ("files.json", "videos.json")
FILES = (
    *CACHES,
    "store.json",
    "nodes/{train}/record.json",
    "nodes/{train}/samples.json",
    "nodes/{embed_key}/record.json",
    "nodes/{embed}/items.parquet",
    "nodes/{embed}/items/mark.json",
    "nodes/{predict}/items.parquet",
    "projects/*/train.json",
    "embeddings/{embed}.zarr/zarr.json",
    "frames/{frames}.zarr/zarr.json",
    "runs/{train}/config.yaml",
    "runs/{train}/summary.json",
    "runs/{train}/metrics.jsonl",
    "reports/*/metrics.json",
)
QUICK = {(name, "cut") for name in (*CACHES, "nodes/{embed}/items.parquet", "nodes/{embed}/items/mark.json")}


class Listening(SilentObserver):
    """Keeps what is said while videos are read."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def indexing(self, num_videos: int) -> Reporter:
        reporter = super().indexing(num_videos)
        reporter.note = self.notes.append  # type: ignore[method-assign]
        return reporter


@pytest.fixture
def project(restorable: Path) -> Project:
    return put_back(restorable)


def place(project: Project, name: str) -> Path:
    """The file; a mark is made, since those of the project are folded."""
    planner = project.planner()
    keys = {node: planner.plan(node).spec_key for node in ("frames", "embed", "train", "predict")}
    keys["embed_key"] = planner.plan("embed").key
    written = name.format(**keys)
    if written.endswith("mark.json"):
        ledger = ItemLedger(project.file.store.node(keys["embed"]))
        row = min(ledger.load().values(), key=lambda row: row.digest)
        ledger.commit(row)
        return project.file.store.node(keys["embed"]) / "items" / f"{row.digest}.json"
    return min(project.file.store.root.glob(written))


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


def said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], str]:
    """What each command says: its output, or the error that `main` prints. Whatever else is raised fails the test."""
    monkeypatch.chdir(folder)
    texts = {}
    for command in COMMANDS:
        done = CliRunner().invoke(app, list(command))
        if done.exception is not None and not isinstance(done.exception, (ReelwrightError, SystemExit)):
            raise done.exception
        texts[command] = f"{done.output}{done.exception or ''}"
    return texts


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, id=f"{name}: {kind}", marks=[] if (name, kind) in QUICK else pytest.mark.slow)
        for name in FILES
        for kind in DAMAGES
    ],
)
def test_no_command_ends_in_a_traceback_and_repair_makes_it_whole(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    path = place(project, name)
    weights = project.record("train").outputs["weights"]
    damage(path, kind)
    texts = said(project.file.folder, monkeypatch)
    message = {command: text for command, text in texts.items() if "damaged" in text}
    for command, text in message.items():
        assert str(path) in text, command
        assert name in CACHES or "Run `reelwright verify --repair`" in text, command
    if name in CACHES:
        assert ("status",) in message
        assert ("run", "-n") in message
        damage(path, kind)  # `gc` reads videos, and so has written it again
    assert [problem.path for problem in verify(project.file).problems if problem.is_wrong] == [path]
    assert repair(project.file, SilentObserver()).problems == ()
    assert project.run().nothing_to_do
    assert project.record("train").outputs["weights"] == weights
    assert "damaged" not in "".join(said(project.file.folder, monkeypatch).values())


def test_a_damaged_cache_is_written_again_by_the_next_run(project: Project) -> None:
    store = project.file.store
    whole = {path: path.read_bytes() for path in (store.files, store.videos)}
    for path in whole:
        path.write_bytes(b"")
    observer = Listening()
    assert project.run(observer=observer).nothing_to_do
    assert [note for note in observer.notes if "was damaged" in note] == [
        f"{path} was damaged: what it knew of files is read again" for path in whole
    ]
    assert verify(project.file, whole=True).problems == ()
    assert store.videos.read_bytes() == whole[store.videos]


def test_a_digest_that_is_altered_is_not_believed(project: Project) -> None:
    """One flipped digit would answer from another video's outputs."""
    path = project.file.store.files
    digest = next(iter(project.planner().dataset.digests.values()))
    assert digest
    other = ("0" if digest[0] != "0" else "1") + digest[1:]
    path.write_text(path.read_text().replace(digest, other))
    planner = project.planner()
    assert other not in planner.dataset.digests.values()
    assert any(f"{path} was damaged" in note for note in planner.dataset.notes)


@pytest.mark.parametrize("kind", DAMAGES)
def test_progress_and_locks_that_are_damaged_stop_nobody(tmp_path: Path, kind: str) -> None:
    store = Store.at(tmp_path)
    progress = store.progress("k")
    progress.parent.mkdir()
    progress.write_text('{"node": "embed", "videos": 3}')
    damage(progress, kind)
    assert read_progress(store, "k") is None
    with exclusive(store.lock("k"), report=pytest.fail):
        (lock,) = store.lock("k").iterdir()
        content = lock.read_bytes()
    lock.with_name("000009.json").write_bytes(DAMAGES[kind](content))
    (held,) = holdings(store.locks)
    assert held.owner.host == "a machine unknown"  # held by somebody, until nothing was heard for a minute
    with exclusive(store.lock("k"), report=lambda _: None, stale_seconds=0.1):
        pass


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_note_of_use_that_is_damaged_keeps_gc_from_guessing(project: Project, kind: str) -> None:
    note = project.file.store.locks / "uses" / "somebody.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text('{"process": 1}')
    damage(note, kind)
    with pytest.raises(StoreError, match=r"somebody.json says that something .* Remove it when no command works"):
        repair(broken(project), SilentObserver())


def broken(project: Project):
    (project.file.store.root / "files.json").write_bytes(b"")
    return project.file


def test_a_store_of_a_newer_release_is_refused_by_every_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project.file.store.root
    write_sealed(root / "store.json", {"schema": LAYOUT + 1})
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    monkeypatch.chdir(project.file.folder)
    for command in (*COMMANDS, ("run",), ("verify",), ("verify", "--all", "--repair"), ("gc", "--now", "--delete")):
        done = CliRunner().invoke(app, list(command))
        assert isinstance(done.exception, ConfigError), command
        assert "of a newer release of reelwright" in str(done.exception), command
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_store_of_an_older_release_is_read_and_gets_the_number_when_it_is_written_to(project: Project) -> None:
    number = project.file.store.root / "store.json"
    number.unlink()
    assert project.run().nothing_to_do
    assert verify(project.file, whole=True).problems == ()
    assert not number.exists()  # nothing was written: a store that is only read stays as it is
    assert project.run(force=["scores"], until=["scores"]).exit_code == 0
    assert number.exists()


def first_row(path: Path) -> Any:
    return EmbeddingStore(path.parent).rows(path.name).output("pooled", 0, 1)


@pytest.mark.parametrize("kind", ["empty", "cut", "other bytes"])
@pytest.mark.parametrize("name", ["zarr.json", "{array}/zarr.json"])
@pytest.mark.parametrize("area", ["frames", "embeddings"])
def test_rows_whose_description_is_damaged_are_told(project: Project, area: str, name: str, kind: str) -> None:
    is_frames = area == "frames"
    path = min(project.file.store.root.glob(f"{area}/*.zarr/*/zarr.json")).parent
    damage(path / name.format(array="frame" if is_frames else "pooled"), kind)
    with pytest.raises(StoreError, match=rf"{path}.*zarr.json is damaged .* Run `reelwright verify --repair`"):
        FrameStore(path.parent).rows(path.name).read(0, 1) if is_frames else first_row(path)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_choice_that_was_remembered_and_is_damaged_is_measured_again(tmp_path: Path, kind: str) -> None:
    path, choice = tmp_path / "cpu.json", Choice(channels_last=True, batch_size=8, rows_per_second=9.0)
    write_json(path, {"encoder": "timm/x", "choice": vars(choice)})
    assert remembered(path) == choice
    damage(path, kind)
    assert remembered(path) is None
