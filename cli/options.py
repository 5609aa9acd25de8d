"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from reelwright.cli.completion import complete_node, complete_setting
from reelwright.storage.errors import ConfigError


def on_this_machine(path: Path | None) -> Path | None:
    """A place to write to. Raises ConfigError for a URL, which as a path would be a folder called ``s3:``."""
    if path is not None and _URL.match(str(path)):
        scheme, _, rest = str(path).partition(":/")
        raise ConfigError(f"{scheme}://{rest}: give a path on this machine; only `export --out` takes URLs yet")
    return path


EXIT_SOME_FAILED = 3  # finished, but some videos failed
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        help="Pipeline file; default: reelwright.yaml or pipeline.yaml in this folder.",
    ),
]
VideosOption = Annotated[
    str | None, typer.Option("--videos", help="Without a pipeline file: a manifest, a folder, a video or a pattern.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "-S",
        "--set",
        metavar="NAME=VALUE",
        autocompletion=complete_setting,
        help="Override a setting, as in train.epochs=5. Repeatable. Blocks are merged ('train.model={layers: 2}'); one "
        "given another name ('train.model={name: gru}') loses the options of the old one.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for machines.")]
JobsOption = Annotated[int | None, typer.Option("-j", "--jobs", min=1, help="Decoding processes.")]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="local|dask|slurm",
        help="Where it runs; default: as the file's cluster block says, else local.",
    ),
]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Dask scheduler that is there.")
]
ProfileOption = Annotated[str | None, typer.Option("--profile", help="Block of your file of clusters.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="dask, slurm: at most so many workers.")]
ForceOption = Annotated[
    list[str] | None,
    typer.Option("--force", metavar="NODE", help="Do this node again. Repeatable.", autocompletion=complete_node),
]
KeepGoingOption = Annotated[
    bool, typer.Option("-k", "--keep-going", help="After a node failed, go on with what does not need it.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Do at most so many videos a node; what needs them all waits.")
]
DryRunOption = Annotated[bool, typer.Option("-n", "--dry-run", help="Say what would run and why; run nothing.")]
FrozenOption = Annotated[
    bool, typer.Option("--frozen", help="Refuse to differ from the lock file beside the pipeline file.")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", min=0, help="Within this run, try a failed video again up to so many times.")
]
NoRetryOption = Annotated[
    bool, typer.Option("--no-retry", help="Leave videos as they are that failed in earlier runs; they are told of.")
]
RetryQuarantinedOption = Annotated[
    bool,
    typer.Option(
        "--retry-quarantined", help="Also try videos again that failed videos.quarantine_after times, over all runs."
    ),
]
MultirunOption = Annotated[
    bool, typer.Option("-m", "--multirun", help="Run all combinations of the NAME=VALUE,VALUE that follow.")
]
ParallelOption = Annotated[
    int, typer.Option("--parallel", min=1, help="With -m: so many combinations at once, each in its own process.")
]
