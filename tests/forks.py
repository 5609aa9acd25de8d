"""Processes of `reelwright` without its start-up time, six seconds of a core: forked off one that has imported all.

One process forks for all test processes of a run. `listen` starts it; it imports at the first call and ends with the
process that listens. What it gives is a process like any other: with a session, a working directory, variables and
pipes of its own, to be waited for or killed. Tests of what happens at start (imports, variables that a library reads
when it is loaded) start Python itself.

Decoding processes, a third of a second each, come off one of their own, which has imported no more than they do:
those that the tests themselves use, and those of what is run to its end by `run`. What `start` gives may be killed with
all that it started, and has processes as users have them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Self

from reelwright.stages.decode.processes import child

_PIECE_BYTES = 1 << 16
_MOST_FILES = 8
_MOST_WAITING = 100  # connections while it imports


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When a run is killed: some time after the ``number``-th renaming to a path that fits ``pattern`` is asked for.

    Files get their names by renaming only. It kills its whole process group.
    """

    pattern: str
    number: int
    delay_seconds: float = 0.0  # 0: before it is done


class Forked:
    """One process, with what tests use of `subprocess.Popen`. Its text is decoded; it leads a session of its own."""

    def __init__(self, arguments: tuple[str, ...], status: int, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.args, self.stdout, self.stderr = arguments, stdout, stderr
        self.returncode: int | None = None
        self._status, self._reading = os.fdopen(status, "rb", buffering=0, closefd=False), threading.Lock()
        weakref.finalize(self, os.close, status)  # not before: several threads may wait for its end
        self.pid = int(self._status.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self.wait()

    def poll(self) -> int | None:
        """Its exit status, negative where a signal ended it; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it writes from now on to its end, as stdout and stderr. Raises subprocess.TimeoutExpired."""
        read: dict[str, str] = {"stdout": "", "stderr": ""}

        def drain(name: str, pipe: IO[str]) -> None:
            read[name] = pipe.read()

        pipes = {name: pipe for name in read if (pipe := getattr(self, name)) is not None and not pipe.closed}
        threads = [threading.Thread(target=drain, args=item, daemon=True) for item in pipes.items()]
        for thread in threads:
            thread.start()
        until = None if timeout is None else time.monotonic() + timeout
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        self._close()
        return read["stdout"], read["stderr"]

    def send_signal(self, number: int) -> None:
        """To the process alone; `os.killpg` with its ``pid`` is to all that it started."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            with self._reading:
                if self.returncode is None:
                    self.returncode = int(self._status.readline())
        return self.returncode

    def _close(self) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()


def start(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    code: str = "",
    log: Path | None = None,
    errors: IO[str] | None = None,
    kill: Moment | None = None,
    renamed: Path | None = None,
    is_run: bool = False,
) -> Forked:
    """`reelwright` with ``arguments``, or the Python ``code`` with them as `sys.argv[1:]`.

    What it writes goes to pipes, or is added to ``log``; on stderr, to ``errors``. Files that get their names are added
    to ``renamed``. is_run: its decoding processes are forked off, too, and in no group of its own.
    """
    asked = {
        "arguments": arguments,
        "cwd": str(cwd),
        "env": dict(os.environ if env is None else env),
        "code": code,
        "kill": vars(kill) if kill else None,
        "renamed": str(renamed or ""),
        "is_run": is_run,
    }
    if log is not None:
        file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        ends, pipes = [file, os.dup(file)], (None, None)
    elif errors is not None:
        out, out_end = os.pipe()
        ends, pipes = [out_end, os.dup(errors.fileno())], (os.fdopen(out), None)
    else:
        (out, out_end), (told, told_end) = os.pipe(), os.pipe()
        ends, pipes = [out_end, told_end], (os.fdopen(out), os.fdopen(told))
    return Forked(arguments, _ask("commands", asked, ends), *pipes)


start_own_decoder = child.start_process  # as users have it, whatever takes its place


def start_decoder(module: str, descriptors: Sequence[int]) -> Forked:
    """A decoding process with these open files, in place of `child.start_process`."""
    asked = {"arguments": (module,), "cwd": str(Path.cwd()), "env": child.environment()}
    return Forked((), _ask("decoders", asked, [os.dup(end) for end in (1, 2, *descriptors)]), None, None)


def start_training(command: Sequence[str], *, stderr: IO[str], env: Mapping[str, str], **_: Any) -> Forked:
    """One of the processes that train a run together, in place of the `subprocess.Popen` of stages/fit/processes."""
    code = f"import runpy; runpy.run_module({command[-2]!r}, run_name='__main__')"
    return start(command[-1], cwd=Path.cwd(), env=env, code=code, errors=stderr)


def run(*arguments: str, cwd: Path, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """`start`, waited for; killed with all that it started where it takes longer."""
    process = start(*arguments, cwd=cwd, is_run=True, **options)
    try:
        out, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(arguments, process.wait(), out, errors)


def listen() -> None:
    """Start the processes that fork for this process and all that it starts; they do nothing until they are asked."""
    global _lifeline
    until, _lifeline = os.pipe()
    for kind in _IMPORTS:
        with socket.socket(socket.AF_UNIX) as listening:
            _address(kind).unlink(missing_ok=True)  # of an earlier process of this number that was killed
            listening.bind(str(_address(kind)))
            listening.listen(_MOST_WAITING)
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, kind, str(_address(kind)), str(listening.fileno()), str(until)],
                cwd=Path(__file__).parents[1],
                pass_fds=[listening.fileno(), until],
                env=child.environment() if kind == "decoders" else None,
            )
            _servers.append(process)
    os.close(until)


def close() -> None:
    """End the processes that `listen` started; nothing where it was not called."""
    if not _servers:
        return
    os.close(_lifeline)
    while _servers:
        _servers.pop().wait(30)


_IMPORTS = {  # all that a process would import, so that a fork begins to work at once
    "commands": (
        "av",
        "pyarrow.dataset",
        "sklearn.metrics",
        "torch.utils.tensorboard",
        "zarr",
        "reelwright.cli.main",
        "reelwright.cli.run.run",
        "reelwright.pipeline.run.runner",
        "reelwright.pipeline.upkeep.verify",
        "reelwright.stages.embed_rows.work",
        *(f"reelwright.stages.{stage}.work" for stage in ("index", "decode", "embed", "evaluate", "predict", "train")),
        *(f"reelwright.stages.{stage}.work" for stage in ("finetune", "pretrain")),
        "reelwright.stages.fit.processes.process",
    ),
    "decoders": (
        "reelwright.stages.decode.processes.worker",
        "reelwright.stages.decode.readers.pyav",
        "reelwright.stages.decode.store_tasks",
        "reelwright.stages.decode.tasks",
    ),
}
_OF_BUCKETS = {"AWS_ENDPOINT_URL": "s3fs"}  # variable of a process -> what it will import, too
_servers: list[subprocess.Popen[bytes]] = []
_lifeline = -1  # held open by the process that listens alone
_PLACE = os.environ.setdefault(  # of the process that listens; short, for addresses have 100 characters
    "REELWRIGHT_TEST_FORKS", f"{tempfile.gettempdir()}/reelwright-tests-{os.getpid()}"
)
_SERVER = """
import os, select, sys
kind, address, *descriptors = sys.argv[1:]
listening, until = map(int, descriptors)
if until not in select.select([listening, until], [], [])[0]:  # nothing is imported before the first call
    from tests.forks import serve
    serve(kind, listening, until)
os.unlink(address)
"""


def _address(kind: str) -> Path:
    return Path(f"{_PLACE}-{kind}")


def _ask(kind: str, asked: dict[str, Any], ends: list[int]) -> int:
    """Have a process forked that gets ``ends``, which are closed here; what tells of its number and its end."""
    status, status_end = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(_address(kind)))
            socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], [status_end, *ends])
    finally:
        for end in (status_end, *ends):
            os.close(end)
    return status


def serve(kind: str, listening: int, until: int) -> None:
    """Fork for each connection to a socket, until nobody holds the other end of the pipe ``until``."""
    for module in _IMPORTS[kind]:
        import_module(module)
    gc.freeze()
    listener = socket.socket(fileno=listening)
    while until not in select.select([listener, until], [], [])[0]:
        asked, ends = _heard(listener)
        if asked is not None:
            _fork(asked, ends, closing=(listener.fileno(), until))
        for end in ends:
            os.close(end)


def _fork(asked: dict[str, Any], ends: list[int], *, closing: tuple[int, ...]) -> None:
    for module in (_OF_BUCKETS[name] for name in _OF_BUCKETS if name in asked["env"]):
        import_module(module)
    middle = os.fork()
    if middle == 0:
        for descriptor in closing:
            os.close(descriptor)
        if os.fork() == 0:  # no child of the server, which goes on at once
            _watch(asked, *ends)
        os._exit(0)
    os.waitpid(middle, 0)


def _heard(listener: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """What the next connection asks for, and the files that come with it; None where who asks was killed meanwhile."""
    connection, _ = listener.accept()
    with connection:
        heard, ends, _, _ = socket.recv_fds(connection, _PIECE_BYTES, _MOST_FILES)
        while piece := connection.recv(_PIECE_BYTES):
            heard += piece
    return (json.loads(heard) if heard.endswith(b"\n") else None), ends


def _watch(asked: dict[str, Any], status: int, *ends: int) -> None:
    """Fork the process that was asked for, and say its number and how it ends."""
    ready, ready_end = os.pipe()
    number = os.fork()
    if number == 0:
        os.close(status)
        os.close(ready)
        os.setsid()
        os.close(ready_end)
        _become(asked, *ends)
    os.close(ready_end)
    os.read(ready, 1)  # it leads its group: whoever gets its number may kill that
    for end in ends:
        os.close(end)
    with contextlib.suppress(BrokenPipeError):  # of who asked and is gone
        os.write(status, b"%d\n" % number)
        _, code = os.waitpid(number, 0)
        os.write(status, b"%d\n" % os.waitstatus_to_exitcode(code))
    os._exit(0)


def _become(asked: dict[str, Any], out: int, errors: int, *files: int) -> None:
    """Be the process, a decoding one where it has more files; it ends as Python does."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, out, errors)):
        os.dup2(source, target)
        os.close(source)
    os.chdir(asked["cwd"])
    paths = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [path for path in paths if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ.clear()
    os.environ.update(asked["env"])
    if files:
        sys.argv = ["worker", *asked["arguments"], *map(str, files)]
        import_module("reelwright.stages.decode.processes.worker").main()
        os._exit(0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background have their children ignore it
    if asked["kill"]:
        sys.addaudithook(_killer(Moment(**asked["kill"])))
    if asked["is_run"]:
        child.start_process = start_decoder
    if asked["renamed"]:
        sys.addaudithook(_noting(asked["renamed"]))
    sys.argv = ["-c" if asked["code"] else "reelwright", *asked["arguments"]]
    try:
        if asked["code"]:
            exec(compile(asked["code"], "<code>", "exec"), {"__name__": "__main__"})
        else:
            import_module("reelwright.cli.main").main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    # As Python ends, but for taking down all that was imported: two seconds, in which each page of it would be copied.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _killer(moment: Moment) -> Callable[[str, tuple[Any, ...]], None]:
    fits, seen = re.compile(moment.pattern), [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" or not fits.search(str(arguments[1])):
            return
        seen[0] += 1
        if seen[0] == moment.number:
            if moment.delay_seconds == 0.0:
                os.killpg(0, signal.SIGKILL)
            threading.Timer(moment.delay_seconds, os.killpg, (0, signal.SIGKILL)).start()

    return hook


def _noting(path: str) -> Callable[[str, tuple[Any, ...]], None]:
    note = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            os.write(note, f"{arguments[1]}\n".encode())

    return hook
