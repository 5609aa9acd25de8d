"""What nodes left behind, as objects: a trained run, a report, and the store they lie in, without a pipeline file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from reelwright.pipeline.api.model import Model
from reelwright.pipeline.inspect.trained_model import pipeline_of_run
from reelwright.pipeline.plan.graph import names_of
from reelwright.pipeline.plan.history import History
from reelwright.pipeline.project import Project
from reelwright.stages.base.registry import load
from reelwright.storage.digests import readable
from reelwright.storage.errors import ConfigError, StoreError, nearest
from reelwright.storage.files import folder_bytes
from reelwright.storage.kinds import KINDS
from reelwright.storage.ledger.digest_cache import KnownFiles, KnownProbes
from reelwright.storage.ledger.records import Record, check_schema
from reelwright.storage.results.runs import RunFolder
from reelwright.storage.store import Store as Paths
from reelwright.storage.tables.annotations import UNKNOWN, Annotation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from reelwright.stages.arrays.embeddings import Embeddings

_LOSS = "loss"
FRAME = "reelwright.stages.arrays.tables:frame_of_lines"  # imported when a table is asked for
PROBED = ("status", "duration_seconds", "num_frames", "fps", "width", "height", "codec")  # of a video, in tables


class Run:
    """A trained run: what it was told, how it went, and its best weights."""

    def __init__(self, folder: RunFolder, *, record: Record, project: Project | None) -> None:
        self.folder = folder
        self._record, self._project = record, project

    @property
    def node(self) -> str:
        """The name of the node that trained it."""
        return self._record.node

    @property
    def key(self) -> str:
        """What it is called in the store."""
        return self.folder.path.name

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @property
    def weights(self) -> Path:
        """The best weights, a safetensors file."""
        return self.folder.weights

    @property
    def settings(self) -> dict[str, Any]:
        """What config.yaml says: task, classes, window, model and its options, optimizer, schedule, ..."""
        return self.folder.config()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores; empty where it learned without labels."""
        return tuple(self.settings.get("classes") or ())

    @property
    def metrics(self) -> dict[str, float]:
        """The best epoch's line: epoch, train_loss, val_loss, val_<metric>, ...; losses are means, shares in [0, 1]."""
        return dict(self._record.outputs.get("metrics", {}))

    def curves(self) -> Any:
        """A line an epoch: epoch, update, lr, train_loss, ..., val_<metric>, ... as a pandas DataFrame.

        Without pandas a `pyarrow.Table`. What an epoch did not measure is null.
        """
        lines = self.folder.metrics()
        names = list(dict.fromkeys(name for line in lines for name in line))
        return load(FRAME)(names, [[line.get(name) for name in names] for line in lines])

    def plot(self, *names: str, ax: Any = None) -> Figure:
        """Curves over epochs, a matplotlib figure; without names all losses.

        Raises ConfigError for a curve that there is not, UnusableMachineError without matplotlib.
        """
        lines = self.folder.metrics()
        known = list(
            dict.fromkeys(name for line in lines for name, value in line.items() if isinstance(value, int | float))
        )
        wrong = [name for name in names if name not in known]
        if wrong or not known:
            raise ConfigError(
                f"{self.node} has no curve {wrong[0] if wrong else ''!r}.{nearest(wrong[0], known) if wrong else ''} "
                f"It has: {', '.join(known)}"
            )
        chosen = names or tuple(name for name in known if name.endswith(_LOSS))
        nan = float("nan")
        draw = load("reelwright.stages.arrays.tables:draw_lines")
        curves = {name: [line.get(name, nan) for line in lines] for name in chosen}
        epochs = [line.get("epoch", place) for place, line in enumerate(lines)]
        figure: Figure = draw(epochs, curves, title=f"{self.node}: training", x_label="epoch", ax=ax)
        return figure

    def model(self, *, device: str = "auto", overrides: str | Sequence[str] = ()) -> Model:
        """The model, with all from a video to its scores as the project has it now; of a store's run, the run alone.

        It predicts with the defaults of predict, whatever predict nodes of the project set; ``overrides`` are its
        settings, as ``window.hop=2``. Raises ConfigError for a run that gives no scores.
        """
        project = self._project
        if project is None:
            return Model.load(self.path, device=device, overrides=overrides)
        return Model.of_pipeline(
            lambda videos: pipeline_of_run(project, self.node, videos, names_of(overrides)),
            device=device,
            name=self.node,
        )

    def __repr__(self) -> str:
        values = self.settings
        model = (values.get("model") or {}).get("name", values.get("encoder", "?"))
        best = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items() if name.startswith("val_"))
        return f"<run of {self.node}: {model}, task {values.get('task')}{f', {best}' if best else ''}>"

    def _repr_html_(self) -> str:
        rows = [*self.metrics.items(), ("trained", self._record.finished), ("folder", str(self.path))]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(("", ""), rows, title=repr(self).strip("<>"))
        return shown


@dataclass(frozen=True, repr=False)
class Report:
    """What an evaluate, probe or render node wrote."""

    node: str
    folder: Path
    produces: str

    @property
    def page(self) -> Path:
        """The page that people look at, self-contained."""
        return self.folder / KINDS[self.produces].page

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says; shares are in [0, 1], times in seconds. Raises StoreError for pictures."""
        path = self.folder / "metrics.json"
        if not path.is_file():
            raise StoreError(f"{self.node} made pictures and has no metrics; look at {self.page}")
        with readable(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def __repr__(self) -> str:
        return f"<report of {self.node}: {self.page}>"

    def _repr_html_(self) -> str:
        found = self.metrics if (self.folder / "metrics.json").is_file() else {}
        rows = [(name, value) for name, value in found.items() if isinstance(value, int | float | str)]
        shown: str = load("reelwright.stages.arrays.tables:html_table")(("", ""), rows, title=repr(self).strip("<>"))
        return shown


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
            labels=SimpleNamespace(classes=(), background=UNKNOWN),
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


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _one(prefix: str, keys: Sequence[str], *, what: str) -> str:
    found = [key for key in keys if key.startswith(prefix)]
    if len(found) != 1:
        shown = ", ".join(key[:8] for key in (found or keys)[:10])
        raise ConfigError(f"key {prefix!r} fits {len(found)} {what} of the store: {shown or 'there are none'}")
    return found[0]
