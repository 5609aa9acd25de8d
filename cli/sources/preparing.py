"""The commands below prepare: tables of a data set that people have, procedures to start from, detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from reelwright.cli.format import print_json, table_text
from reelwright.cli.options import JobsOption, JsonOption, on_this_machine
from reelwright.cli.progress import Watcher
from reelwright.storage.errors import ConfigError, nearest

if TYPE_CHECKING:
    from reelwright.stages.prepare.lists import Problem
    from reelwright.stages.prepare.recordings import RecordingsResult
    from reelwright.stages.prepare.work import PrepareResult

_SHOWN = 3  # problems of a kind that are printed; all are in problems.csv
# kinds that mean less data than the lists promise: exit code 3
_SERIOUS = frozenset({"missing", "unreadable", "ambiguous", "not_read"})

_PROCEDURES = {
    "industreal": "https://github.com/TimSchoonbeek/IndustReal",
    "meccano": "https://iplab.dmi.unict.it/MECCANO (frames), https://github.com/TimSchoonbeek/PSR-annotations (steps)",
}

DatasetArgument = Annotated[
    str | None, typer.Argument(metavar="[DATASET]", help="Name of a data set; without it, all are listed.")
]
RootOption = Annotated[Path | None, typer.Option("--root", help="Folder (or archive) of the data set as you have it.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", callback=on_this_machine, help="Where tables go; default: ./DATASET.")
]
ListOption = Annotated[
    list[str] | None,
    typer.Option("--list", metavar="SPLIT=FILE", help="This list instead of the data set's own. Repeatable."),
]
RenameOption = Annotated[
    list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Call a split so, as val=test.")
]
SplitOption = Annotated[list[str] | None, typer.Option("--split", help="Only this split. Repeatable.")]


class _DatasetByDefault(TyperGroup):
    """`prepare ucf101 ...` is `prepare dataset ucf101 ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words as they were given, with the command that is meant where none is."""
        is_named = bool(args) and args[0] in {*self.commands, *ctx.help_option_names}
        is_completed = ctx.resilient_parsing and not args  # whoever presses Tab may mean any of them
        return super().parse_args(ctx, args if is_named or is_completed else ["dataset", *args])


prepare = typer.Typer(
    cls=_DatasetByDefault,
    help="Tables for a pipeline file, of data that you have: `prepare NAME --root DIR`, or a list without NAME.",
)


@prepare.command("dataset")
def prepare_dataset(
    dataset: DatasetArgument = None,
    root: RootOption = None,
    out: OutOption = None,
    split_number: Annotated[int, typer.Option("--split-number", min=1, help="Of sets with several splits.")] = 1,
    splits: SplitOption = None,
    rename: RenameOption = None,
    lists: ListOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look at names only; open no video.")] = False,
    max_entries: Annotated[int, typer.Option("--max-entries", min=1, help="Of one archive.")] = 500_000,
    max_gigabytes: Annotated[int, typer.Option("--max-gigabytes", min=1, help="Of one archive, unpacked.")] = 500,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Of procedures: folder of the label files; default: --root.")
    ] = None,
    with_errors: Annotated[
        bool, typer.Option("--with-errors", help="Of procedures: wrong installations count as changes too.")
    ] = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write manifest and label tables of a data set you have; move nothing, download nothing, check every file.

    The word dataset may be left out, as in `prepare ucf101 --root UCF-101/`.

    DATASET is a name of the list that is shown without it; industreal or meccano, recordings of a procedure; or the
    file of a procedure (.yaml) whose recordings are laid out as theirs are. What is missing, unreadable, there twice
    or without a label goes into problems.csv. Exit code 3 when videos that the lists name cannot be used.
    """
    from reelwright.stages.prepare.recordings import builtin_procedure
    from reelwright.stages.prepare.specs import dataset as known_dataset
    from reelwright.stages.prepare.work import PrepareRequest
    from reelwright.stages.prepare.work import prepare as make_tables
    from reelwright.storage.tables.archives import ArchiveLimits

    if dataset is None:
        list_datasets()
        return
    if dataset.endswith((".yaml", ".yml")) or builtin_procedure(dataset) is not None:
        prepare_recordings(dataset, root=root, labels=labels, out=out, include_errors=with_errors, as_json=as_json)
        return
    spec = known_dataset(dataset)
    if root is None:
        raise ConfigError(f"{dataset}: give --root FOLDER. {spec.title}; people get it from {spec.where}")
    request = PrepareRequest(
        dataset=dataset,
        root=root,
        out=out or Path(dataset),
        split_number=split_number,
        splits=tuple(splits or ()),
        rename=_pairs(rename, "--rename"),
        lists={name: Path(path) for name, path in _pairs(lists, "--list").items()},
        check="names" if quick else "full",
        workers=jobs,
        limits=ArchiveLimits(max_entries=max_entries, max_bytes=max_gigabytes << 30),
    )
    with Watcher() as watcher:
        result = make_tables(request, watcher.working(dataset))
    _print_result(result, as_json=as_json)
    if any(problem.kind in _SERIOUS for problem in result.problems):
        raise typer.Exit(3)


@prepare.command()
def procedure(
    name: Annotated[str, typer.Argument(help="industreal or meccano.")],
) -> None:
    """Print the procedure file of a known data set, to be used or changed for another."""
    folder = files("reelwright.stages.steps")
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"no procedure {name!r} is known.{nearest(name, known)} Known: {', '.join(known)}")
    typer.echo((folder / f"{name}.yaml").read_text(encoding="utf-8"), nl=False)


@prepare.command()
def detections(
    sources: Annotated[list[Path], typer.Argument(help="Folders of, or single files, <recording>_results_pred.csv.")],
    out: Annotated[Path, typer.Option("--out", callback=on_this_machine, help="The table to write, a .csv.")],
) -> None:
    """Write one table of detected states, for `steps`, of files as the public code of IndustReal leaves them."""
    from reelwright.storage.tables.detections import import_detections

    if out.suffix != ".csv":
        raise ConfigError(f"--out {out}: the table is a .csv; give such a name")
    number = import_detections(sources, out)
    typer.echo(f"{number:,} detections in {out}")


def prepare_recordings(
    name: str, *, root: Path | None, labels: Path | None, out: Path | None, include_errors: bool, as_json: bool
) -> None:
    """Tables of the recordings of a procedure, and what is inconsistent in them."""
    from reelwright.stages.prepare.recordings import RecordingsRequest, builtin_procedure
    from reelwright.stages.prepare.recordings import prepare_recordings as make

    if root is None:
        raise ConfigError(f"{name}: give --root FOLDER, which holds [recordings/]train, val and test")
    path = builtin_procedure(name) or Path(name)
    found = make(
        RecordingsRequest(
            procedure=path, root=root, labels=labels, out=out or Path(path.stem), include_errors=include_errors
        )
    )
    _print_recordings(found, as_json=as_json)
    if any(problem.kind in _SERIOUS for problem in found.problems):
        raise typer.Exit(3)


def _print_recordings(found: RecordingsResult, *, as_json: bool) -> None:
    if as_json:
        kinds = Counter(problem.kind for problem in found.problems)
        print_json({"out": str(found.out), "splits": found.counts, "problems": dict(kinds)})
        return
    columns = list(next(iter(found.counts.values())))
    totals = {name: sum(counts[name] for counts in found.counts.values()) for name in columns}
    rows = [
        (split, *(f"{counts[name]:,}" for name in columns)) for split, counts in {**found.counts, "all": totals}.items()
    ]
    typer.echo(table_text(("split", *(f">{name}" for name in columns)), rows))
    _print_problems(found.problems, found.out)
    components = ", ".join(found.procedure.components)
    typer.echo(f"\nfor a pipeline file:\nvideos: {{manifest: {found.out / 'manifest.csv'}}}")
    typer.echo(f"labels: {{steps: {found.out / 'changes.csv'}, classes: [{components}]}}")
    typer.echo(f"and image_fps: {found.procedure.fps:g} in the decode node")


def list_datasets() -> None:
    """Print what `prepare` knows."""
    from reelwright.stages.prepare.specs import datasets

    rows = [(name, spec.title, spec.where) for name, spec in datasets().items()]
    rows += [(name, "recordings of an assembly, with steps", where) for name, where in _PROCEDURES.items()]
    typer.echo(table_text(("data set", "what", "from"), rows))


def _print_result(result: PrepareResult, *, as_json: bool) -> None:
    counts, kinds = result.counts(), Counter(problem.kind for problem in result.problems)
    if as_json:
        print_json({"manifest": str(result.manifest), "videos": counts, "problems": dict(kinds)})
        return
    header = (">videos", ">classes", *([">whole set"] if result.full else []))
    rows = []
    for split, count in sorted(counts.items()):
        whole = [f"{result.full[split]:,}" if split in result.full else ""] if result.full else []
        rows.append((split, f"{count:,}", f"{result.classes(split):,}", *whole))
    typer.echo(table_text(("split", *header), rows))
    if result.num_frame_labels:
        typer.echo(f"{result.num_frame_labels:,} frames with a label of their own")
    if result.num_segments:
        typer.echo(f"{result.num_segments:,} segments")
    _print_problems(result.problems, result.manifest.parent)
    tables = {"rows": result.num_frame_labels, "segments": result.num_segments}
    kind = next((name for name, count in tables.items() if count), None)
    sources = [f"{kind}: {result.manifest.with_name(f'{kind}.csv')}"] if kind else []
    labels = ", ".join([*sources, *(["column: label"] if result.has_labels else [])])
    typer.echo(f"\nfor a pipeline file:\nvideos: {{manifest: {result.manifest}{_splits(counts)}}}")
    typer.echo(f"labels: {{{labels}}}" if labels else "", nl=bool(counts))
    if result.fps is not None and any(video.found.path.is_dir() for video in result.videos):
        typer.echo(f"and image_fps: {result.fps:g} in the decode node")


def _print_problems(problems: Sequence[Problem], out: Path) -> None:
    for kind, count in sorted(Counter(problem.kind for problem in problems).items()):
        typer.echo(f"\n{kind}: {count:,}")
        for problem in [problem for problem in problems if problem.kind == kind][:_SHOWN]:
            typer.echo(f"  {problem.video}  {problem.detail}".rstrip())
    if problems:
        typer.echo(f"\nall problems: {out / 'problems.csv'}")


def _splits(counts: dict[str, int]) -> str:
    return "" if set(counts) <= {"train", "val", "test"} else f", splits: [{', '.join(sorted(counts))}]"


def _pairs(entries: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for entry in entries or ():
        name, equals, value = entry.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {entry!r}: write NAME=VALUE")
        pairs[name] = value
    return pairs
