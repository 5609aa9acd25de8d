"""The command `reelwright`: puts the commands together and turns errors into messages and exit codes.

Exit codes: 0 all done or nothing to do; 1 failed; 2 usage or config error; 3 finished, but some videos failed;
75 interrupted by the scheduler, run again; 130 Ctrl-C.
"""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Iterable
from pkgutil import resolve_name
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reelwright.storage.errors import ConfigError, InputError, Interrupted, ReelwrightError

COMMANDS = {  # in the order of `--help`: its panel, and the function, or the group, that is imported when it is meant
    "demo": ("Start", "sources.start:demo"),
    "init": ("Start", "sources.start:init"),
    "index": ("Start", "sources.start:index"),
    "fetch": ("Start", "sources.start:fetch"),
    "synthesize": ("Start", "sources.synthesize:synthesize"),
    "prepare": ("Data", "sources.preparing:prepare"),
    "import-features": ("Data", "sources.importing:import_features"),
    "data": ("Data", "inspect.data:data"),
    "export": ("Data", "inspect.export:export"),
    "export-model": ("Data", "inspect.export:export_model"),
    "run": ("Pipeline", "run.run:run"),
    "status": ("Pipeline", "run.run:status"),
    "watch": ("Pipeline", "run.watching:watch"),
    "explain": ("Pipeline", "run.run:explain"),
    "graph": ("Pipeline", "run.run:graph"),
    "settings": ("Look", "inspect.settings:settings"),
    "report": ("Look", "inspect.export:report"),
    "encoders": ("Look", "inspect.encoders:encoders"),
    "diff": ("Look", "inspect.compare:diff"),
    "compare": ("Look", "inspect.compare:compare"),
    "mean": ("Look", "inspect.compare:mean"),
    "logs": ("Look", "run.logs:logs"),
    "doctor": ("Start", "cluster:doctor"),
    "cluster": ("Look", "cluster:cluster"),
    "verify": ("Store", "upkeep:verify"),
    "gc": ("Store", "upkeep:collect"),
}
EXAMPLES = {  # shown below the help of each; a test reads every one as the command itself would
    "demo": "reelwright demo --folder demo",
    "init": "reelwright init clips/",
    "index": "reelwright index -c falls.yaml",
    "fetch": "reelwright fetch -S embed.encoder=timm/resnet18.a1_in1k",
    "synthesize": "reelwright synthesize octopus --samples 6 --out octopus/",
    "prepare dataset": "reelwright prepare dataset ucf101 --root UCF-101/ --out tables/",
    "prepare procedure": "reelwright prepare procedure industreal",
    "prepare detections": "reelwright prepare detections outputs/ --out detections.csv",
    "import-features": "reelwright import-features features/ --fps 15",
    "export": "reelwright export embed --to npy --out rows/",
    "export-model": "reelwright export-model train --out model/",
    "run": "reelwright run -m train.seed=0,1,2 train.optimizer.lr=1e-3,1e-4",
    "status": "reelwright status -S train.optimizer.lr=1e-3",
    "explain": "reelwright explain train",
    "graph": "reelwright graph --format mermaid",
    "watch": "reelwright watch --wait",
    "settings": "reelwright settings train",
    "report": "reelwright report scores",
    "encoders": "reelwright encoders dinov2 small",
    "diff": "reelwright diff old.yaml new.yaml",
    "compare": "reelwright compare --sort macro_f1",
    "mean": "reelwright mean a.yaml:scores.top1 b.yaml:scores.top1",
    "doctor": "reelwright doctor reelwright.yaml",
    "logs": "reelwright logs clip_07",
    "verify": "reelwright verify --repair",
    "gc": "reelwright gc --delete",
    "data show": "reelwright data show",
    "data sheet": "reelwright data sheet clip_07 --out sheet.png",
    "cluster script": "reelwright cluster script --profile mine",
}
MOVED = {  # commands that were, and what says the same now
    "procedure": "prepare procedure",
    "import-detections": "prepare detections",
    "failures": "logs",
    "show": "explain",
}
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_CTRL_C = 1, 2, 75, 130


def example_of(command: str) -> str:
    """An example of a command; of those of stages, made with the stage's name."""
    return f"Example: {EXAMPLES.get(command, f'reelwright {command} -n')}"


class _Commands(TyperGroup):
    """All commands, each imported when it is meant; Ctrl-C gets its message here, since typer exits without one.

    Stages that packages offer are looked for when none of ours is meant: that reads the metadata of all packages.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self._load([cmd_name])
        elif cmd_name not in self.commands:
            from reelwright.cli.run.single import stage_commands

            self.commands.update(stage_commands())
        if cmd_name not in self.commands:
            self.list_commands(ctx)
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names: ours, one for each stage, and those that packages offer."""
        from reelwright.cli.run.single import offered_commands, stage_commands

        self._load(COMMANDS)
        self.commands = {**self.commands, **stage_commands(), **offered_commands(), **self.commands}
        return super().list_commands(ctx)

    def _load(self, names: Iterable[str]) -> None:
        for name in names:
            panel, place = COMMANDS[name]
            app, found = typer.Typer(), resolve_name(f"reelwright.cli.{place}")
            if isinstance(found, typer.Typer):
                for command in found.registered_commands:
                    own = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
                    command.epilog = example_of(f"{name} {own}")
                app.add_typer(found, name=name, rich_help_panel=panel)
            else:
                app.command(name, rich_help_panel=panel, epilog=example_of(name))(found)
            self.commands.update(typer.main.get_group(app).commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is meant, and its words. Raises ConfigError for one that has another name now."""
        if args[0] in MOVED and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            raise ConfigError(f"the command {args[0]} is `reelwright {MOVED[args[0]]}` now; see its --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _echo_error("stopped by Ctrl-C; what was done is kept, run again to go on")
            raise typer.Exit(EXIT_CTRL_C) from None


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

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


def main() -> None:
    """Entry point of the console script."""
    # A plan of 100,000 videos makes objects that stay, and training few that are in circles: with Python's thresholds
    # (700, 10, 10) a third of the time of a run with nothing to do is spent looking for circles, with those of work
    # (`Watcher.started`) still a tenth.
    gc.set_threshold(500_000, 20, 100)
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
    finally:
        gc.freeze()  # else Python looks through all objects once more, for circles, before it ends


def _echo_error(message: str) -> None:
    print(f"reelwright: {message}", file=sys.stderr)
