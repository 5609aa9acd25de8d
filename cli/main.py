"""The command `reelwright`: puts the commands together and turns errors into messages and exit codes.

Exit codes: 0 all done or nothing to do; 1 failed; 2 usage or config error; 3 finished, but some videos failed;
75 interrupted by the scheduler, run again; 130 Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reelwright.cli import cluster, upkeep
from reelwright.cli.examples import example_of
from reelwright.cli.inspect import compare, data, encoders, export, show
from reelwright.cli.run import failing, run, single, watching
from reelwright.cli.sources import importing, preparing, start, steps, synthesize
from reelwright.storage.errors import ConfigError, InputError, Interrupted, ReelwrightError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_CTRL_C = 1, 2, 75, 130


class _Commands(TyperGroup):
    """All commands; Ctrl-C gets its message here, since typer exits without one.

    Stages that packages offer are looked for when none of ours is meant: that reads the metadata of all packages.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        return super().get_command(ctx, cmd_name) or single.offered_commands().get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, ours first."""
        return [*super().list_commands(ctx), *single.offered_commands()]

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _echo_error("stopped by Ctrl-C; what was done is kept, run again to go on")
            raise typer.Exit(EXIT_CTRL_C) from None


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"reelwright {version('reelwright')}, Python {platform.python_version()}")
        raise typer.Exit


app = typer.Typer(
    name="reelwright",
    cls=_Commands,
    help="Turn videos into frame embeddings once; train, fine-tune and run temporal models on them at will.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage or config error, 3 finished but some videos failed, "
    "75 interrupted, run again, 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


MODULES = (
    start,
    synthesize,
    preparing,
    importing,
    data,
    export,
    run,
    watching,
    show,
    encoders,
    compare,
    failing,
    cluster,
    upkeep,
    steps,
    single,
)
for module in MODULES:
    module.register(app)
for parent, commands in [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]:
    for registered in commands.registered_commands if commands is not None else ():
        own = registered.name or getattr(registered.callback, "__name__", "").replace("_", "-")
        registered.epilog = example_of(f"{parent}{own}")


def main() -> None:
    """Entry point of the console script."""
    # A plan of 100,000 videos makes objects that stay, and training few that are in circles: with Python's thresholds
    # (700, 10, 10) a third of the time of a run with nothing to do is spent looking for circles.
    gc.set_threshold(50_000, 20, 100)
    # Our settings use no plugin of pydantic; looking for some reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        app()
    except Interrupted as error:
        _echo_error(str(error))
        sys.exit(EXIT_INTERRUPTED)
    except (ConfigError, InputError) as error:
        _echo_error(str(error))
        sys.exit(EXIT_USAGE)
    except (ReelwrightError, OSError) as error:
        _echo_error(str(error))
        sys.exit(EXIT_FAILED)


def _echo_error(message: str) -> None:
    print(f"reelwright: {message}", file=sys.stderr)
