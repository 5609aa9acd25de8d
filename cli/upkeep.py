"""Commands that keep a store in order: verify, gc."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reelwright.cli.format import bytes_text, print_json, result_table, table_text
from reelwright.cli.options import ConfigOption, JobsOption, JsonOption, SetOption
from reelwright.cli.progress import Watcher
from reelwright.pipeline.config.pipeline_file import PipelineFile, find_pipeline_file, load_pipeline
from reelwright.pipeline.run.results import RunOptions
from reelwright.storage.errors import ConfigError
from reelwright.storage.store import Store

if TYPE_CHECKING:
    from reelwright.pipeline.upkeep.gc import Sweep
    from reelwright.pipeline.upkeep.verify import Report
    from reelwright.storage.integrity.check import Problem

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SHOWN = 20


def verify(
    config: ConfigOption = None,
    overrides: SetOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take out what is broken and make just that again; foreign files stay.")
    ] = False,
    whole: Annotated[
        bool,
        typer.Option(
            "--all",
            help="The whole store, not only what the pipeline file reaches; --repair only takes the rest out.",
        ),
    ] = False,
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every stored byte against its checksum: missing, truncated, altered, foreign. Exit code 1 when so."""
    from reelwright.pipeline.upkeep.verify import verify as check

    file = load_pipeline(find_pipeline_file(config), overrides or ())
    found = check(file, whole=whole)
    messages: tuple[str, ...] = ()
    left = found
    if repair and not found.is_whole:
        if not as_json:
            _print_problems(found.problems, file.store.root)
        messages = _repair(file, whole=whole, jobs=jobs, as_json=as_json)
        left = check(file, whole=whole)
    if as_json:
        values = {"problems": _plain(found.problems), "repaired": list(messages), "left": _plain(left.problems)}
        print_json({"store": file.store.place, "note": found.note, **values})
    else:
        _print_report(left, file.store, is_second=bool(messages), whole=whole)
    if not left.is_whole:
        raise typer.Exit(1)


def collect(
    configs: Annotated[
        list[Path] | None, typer.Option("-c", "--config", help="Pipeline file whose outputs stay. Repeatable.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Do it; without it, only tell.")] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="30d", help="Only what is older: 12h, 30d, 8w.")
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option("--max-bytes", metavar="50GB", help="Oldest first, only until the whole store is this small."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Also what was changed within the last hour; no job may run.")] = (
        False
    ),
    only_these: Annotated[
        bool, typer.Option("--only-these", help="Give up what other pipeline files left in this store.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what no pipeline file reaches any more, and how many bytes it takes; --delete removes it.

    A file reaches what it makes as it is written: what runs with -S or -m made otherwise is listed too.
    """
    from reelwright.pipeline.upkeep.gc import GUARD_SECONDS, Limits, sweep
    from reelwright.pipeline.upkeep.gc import collect as remove

    given: list[Path | None] = [*configs] if configs else [None]
    files = [load_pipeline(find_pipeline_file(path)) for path in given]
    limits = Limits(
        older_than_seconds=parse_age(older_than) if older_than else 0.0,
        max_bytes=parse_bytes(max_bytes) if max_bytes else None,
        guard_seconds=0.0 if now else GUARD_SECONDS,
    )
    with Watcher() as watcher:
        if delete:
            report = functools.partial(typer.echo, err=True)
            found = remove(files, watcher, limits=limits, only_these=only_these, report=report)
        else:
            found = sweep(files, watcher, limits=limits, only_these=only_these)
    if as_json:
        print_json(_sweep_json(found, files[0].store, is_deleted=delete))
    else:
        _print_sweep(found, files[0].store.root, is_deleted=delete)


def parse_age(text: str) -> float:
    """'30d' -> seconds. Raises ConfigError."""
    return _parse(text, _SECONDS, option="--older-than", example="12h, 30d, 8w")


def parse_bytes(text: str) -> int:
    """'50GB' -> bytes. Raises ConfigError."""
    return int(_parse(text, _BYTES, option="--max-bytes", example="500MB, 50GB, 2TB"))


def _parse(text: str, units: dict[str, int], *, option: str, example: str) -> float:
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(number) :].strip().lower()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError):
        raise ConfigError(
            f"{option} {text!r}: write a number and a unit ({', '.join(units)}), such as {example}"
        ) from None
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{option} {text!r}: must not be negative, such as {example}")
    return value


def _repair(file: PipelineFile, *, whole: bool, jobs: int | None, as_json: bool) -> tuple[str, ...]:
    from reelwright.pipeline.upkeep.repair import repair

    with Watcher() as watcher:
        report = functools.partial(typer.echo, err=True)
        repaired = repair(file, watcher, RunOptions(jobs=jobs), whole=whole, report=report)
    if not as_json:
        for line in repaired.messages:
            typer.echo(f"repaired: {line}")
        if repaired.results:
            typer.echo(f"\n{result_table(repaired.results)}")
    again = [
        f"{result.node}: {result.num_done} videos done again{f', {result.message}' if result.message else ''}"
        for result in repaired.results
    ]
    return (*repaired.messages, *again)


def _print_report(report: Report, store: Store, *, is_second: bool, whole: bool) -> None:
    _print_problems(report.problems, store.root)
    if report.note:
        typer.echo(report.note)
    scope = "the whole store" if whole else "everything that the pipeline file reaches"
    num_wrong = sum(problem.is_wrong for problem in report.problems)
    if not num_wrong:
        typer.echo(f"nothing is wrong {'any more ' if is_second else ''}in {store.place}: {scope} was checked")
    elif is_second:
        typer.echo(
            f"{num_wrong} still wrong: foreign files stay, and only what this pipeline file reaches is made again"
        )
    else:
        typer.echo(f"{num_wrong} wrong in {store.place}; `reelwright verify --repair` does just that again")


def _print_problems(problems: Iterable[Problem], root: Path) -> None:
    for problem in problems:
        typer.echo(f"{problem.kind}: {problem.path.relative_to(root)}: {problem.what}")


def _plain(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [{"path": str(problem.path), "kind": problem.kind, "what": problem.what} for problem in problems]


def _print_sweep(found: Sweep, root: Path, *, is_deleted: bool) -> None:
    kinds: dict[str, list[int]] = {}
    for garbage in found.going:
        kinds.setdefault(garbage.kind, []).append(garbage.num_bytes)
    if kinds:
        rows = sorted(kinds.items(), key=lambda entry: -sum(entry[1]))
        typer.echo(table_text(("kind", ">things", ">size"), [(k, f"{len(s):,}", bytes_text(sum(s))) for k, s in rows]))
        typer.echo("")
    for garbage in found.going[:_SHOWN]:
        typer.echo(f"{bytes_text(garbage.num_bytes):>10}  {garbage.path.relative_to(root)}")
    if len(found.going) > _SHOWN:
        typer.echo(f"... and {len(found.going) - _SHOWN} more (--json shows all)")
    for reason in dict.fromkeys(reason for _, reason in found.kept):
        sizes = [garbage.num_bytes for garbage, why in found.kept if why == reason]
        typer.echo(f"{len(sizes):,} things stay ({bytes_text(sum(sizes))}): {reason}")
    if found.copies:
        copies = bytes_text(sum(garbage.num_bytes for garbage in found.copies))
        done = "removed" if is_deleted else "would go"
        typer.echo(
            f"{len(found.copies):,} copies on this machine of what is not in the bucket any more {done}: {copies}"
        )
    if found.projects:
        typer.echo(f"{len(found.projects)} other pipeline files used this store; what they left last stays")
    done = "removed" if is_deleted else "would go; --delete removes it"
    message = f"{bytes_text(found.num_bytes)} of {bytes_text(found.store_bytes)} {done}"
    typer.echo(message if found.going else f"nothing to remove: the store has {bytes_text(found.store_bytes)}")


def _sweep_json(found: Sweep, store: Store, *, is_deleted: bool) -> dict[str, object]:
    return {
        "deleted": is_deleted,
        "store_bytes": found.store_bytes,
        "bytes": found.num_bytes,
        "going": [
            {"path": store.backend.name_of(garbage.path), "kind": garbage.kind, "bytes": garbage.num_bytes}
            for garbage in found.going
        ],
        "kept": [
            {"path": store.backend.name_of(garbage.path), "kind": garbage.kind, "bytes": garbage.num_bytes, "why": why}
            for garbage, why in found.kept
        ],
        "other_projects": list(found.projects),
        "copies": [{"path": str(garbage.path), "bytes": garbage.num_bytes} for garbage in found.copies],
    }
