"""A store for people who program: what is in it, how large, and its embeddings and runs without a pipeline file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.api.outputs import FRAME, PROBED, Run
from reelwright.pipeline.plan.history import History
from reelwright.stages.base.registry import load
from reelwright.storage.errors import ConfigError, StoreError
from reelwright.storage.files import folder_bytes
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes
from reelwright.storage.ledger.records import check_schema
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store as Paths
from reelwright.storage.tables.annotations import Annotation

if TYPE_CHECKING:
    from reelwright.stages.arrays.embeddings import Embeddings


class Store:
    """A store: a folder, or a bucket's URL, that many projects and people may share."""

    def __init__(self, path: str | Path) -> None:
        """Raises StoreError where there is none, ConfigError for one of a newer release."""
        self.paths = Paths.at(path)
        if self.paths.url is None and not (self.paths.root / "store.json").is_file():
            raise StoreError(
                f"{self.paths.root} is no store (it has no store.json); it is .reelwright/store of a project"
            )
        check_schema(self.paths)

    def videos(self) -> Any:
        """A line a content, as a pandas DataFrame, without pandas a `pyarrow.Table`.

        digest, path (one of its names, null if none is known), status, duration_seconds, num_frames, fps, width,
        height, codec.
        """
        paths = {digest: path for path, (_, _, digest) in KnownFiles(self.paths.files).entries.items()}
        probes = KnownProbes(self.paths.videos).load()
        lines = [
            [digest, paths.get(digest), *(getattr(probe, name) for name in PROBED)] for digest, probe in probes.items()
        ]
        return load(FRAME)(("digest", "path", *PROBED), lines)

    def embeddings(self, key: str | None = None) -> Any:
        """Without ``key``, a line a spec: key, encoder, outputs, dtype, videos, bytes; else its `Embeddings`.

        The first digits of a key are enough. Videos are called by their digests here, labels are not known. Raises
        ConfigError where no key begins so, or several.
        """
        kind = KINDS["embeddings"]
        keys = [name.removesuffix(kind.ending) for name in _names(self.paths.root / kind.folder)]
        if key is not None:
            return self._embeddings(_one(key, keys, what="embeddings"))
        lines = []
        for found in keys:
            store = kind.open(self.paths.embeddings(found))
            outputs = ", ".join(f"{name} {tuple(shape)}" for name, shape in store.spec["outputs"].items())
            about = (str(store.spec.get("encoder", "")), outputs, store.spec["dtype"])
            lines.append([found, *about, len(store.digests()), folder_bytes(store.path)])
        return load(FRAME)(("key", "encoder", "outputs", "dtype", "videos", "bytes"), lines)

    def runs(self) -> Any:
        """A line a trained model, oldest first: key, node, stage, finished, and its metrics at the best epoch."""
        records = History.of(self.paths).runs
        metrics = [record.outputs.get("metrics", {}) for record in records]
        names = list(dict.fromkeys(name for found in metrics for name in found))
        lines = [
            [record.key, record.node, record.stage, record.finished, *(found.get(name) for name in names)]
            for record, found in zip(records, metrics, strict=True)
        ]
        return load(FRAME)(("key", "node", "stage", "finished", *names), lines)

    def run(self, key: str) -> Run:
        """One trained model; the first digits of its key are enough. Raises ConfigError as `embeddings`."""
        records = {record.key: record for record in History.of(self.paths).runs}
        record = records[_one(key, list(records), what="run")]
        self.paths.backend.pull(self.paths.run(record.key))
        return Run(RunFolder(self.paths.run(record.key)), record=record, project=None)

    def sizes(self) -> Any:
        """A line a folder of the store on this machine: folder, entries, bytes."""
        lines = [
            [path.name, sum(1 for _ in path.iterdir()), folder_bytes(path)]
            for path in sorted(self.paths.root.iterdir())
            if path.is_dir()
        ]
        return load(FRAME)(("folder", "entries", "bytes"), lines)

    def _embeddings(self, key: str) -> Embeddings:
        made: Callable[..., Embeddings] = load("reelwright.stages.arrays.embeddings:Embeddings")
        video = load("reelwright.stages.arrays.embeddings:EmbeddedVideo")
        return made(
            self.paths.embeddings(key),
            lambda present: [
                video(video_id=digest, digest=digest, split="", annotation=Annotation()) for digest in sorted(present)
            ],
            labels=_NoLabels,
            node=key,
        )

    def __repr__(self) -> str:
        counts = {kind.folder: len(_names(self.paths.root / kind.folder)) for kind in KINDS.values()}
        shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"<store {self.paths.place!r}: {shown or 'empty'}>"

    def _repr_html_(self) -> str:
        rows = [(path.name, folder_bytes(path)) for path in sorted(self.paths.root.iterdir()) if path.is_dir()]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(
            ("folder", "bytes"), rows, title=repr(self).strip("<>")
        )
        return shown


class _NoLabels:
    classes: tuple[str, ...] = ()
    background = -1


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _one(prefix: str, keys: Sequence[str], *, what: str) -> str:
    found = [key for key in keys if key.startswith(prefix)]
    if len(found) != 1:
        shown = ", ".join(key[:8] for key in (found or keys)[:10])
        raise ConfigError(f"key {prefix!r} fits {len(found)} {what} of the store: {shown or 'there are none'}")
    return found[0]
