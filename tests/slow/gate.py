"""Training that is held at the end of an epoch until the test lets it go on, however fast the machine is."""

from __future__ import annotations

from pathlib import Path

# Takes the place of wandb; an epoch's end is waited at until the gate is open, or a warning says that time is over.
_WANDB = """
import pathlib, signal, time

HERE = pathlib.Path(__file__).parent


class Error(Exception):
    pass


def init(**_):
    return Run()


class Run:
    summary = {}

    def log(self, values, step):
        (HERE / "waits").touch()
        requests = signal.getsignal(signal.SIGUSR1).__self__
        while not (HERE / "open").exists() and not requests.is_stopping:
            time.sleep(0.05)

    def finish(self, exit_code):
        pass
"""


class Gate:
    """For train nodes with `log_to: [wandb]` in processes that are started with `variables`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "wandb.py").write_text(_WANDB)
        self._folder = folder
        self.variables = {"PYTHONPATH": str(folder)}

    def is_reached(self) -> bool:
        """Whether training waits, or has waited."""
        return (self._folder / "waits").exists()

    def open(self) -> None:
        """Training goes on."""
        (self._folder / "open").touch()
