"""A real SLURM of two nodes on this machine, on private ports and folders, started and stopped by tests.

One controller and two slurmd (`-N n1`, `-N n2`; Debian builds them so that one host can play several nodes), with a
munged of their own. What runs on the machine already is not touched: every command finds this cluster by SLURM_CONF.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import psutil

from tests.slow.ports import free_ports

COMMANDS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
NODES = ("n1", "n2")
_START_SECONDS = 60.0
_CONFIG = """
ClusterName=reelwright-test
SlurmctldHost={host}
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=10
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmdTimeout=20
SlurmctldTimeout=30
KillWait=5
InactiveLimit=0
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/d-%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d-%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
NodeName=n1 NodeHostName={host} Port={first_port} CPUs=2 RealMemory=10000 State=UNKNOWN
NodeName=n2 NodeHostName={host} Port={second_port} CPUs=2 RealMemory=10000 State=UNKNOWN
PartitionName=main Nodes=ALL LLN=YES Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no SLURM can be started here; None when it can."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    missing = [name for name in COMMANDS if shutil.which(name, path=path) is None]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root only"


class Slurm:
    """The cluster; use it in a `with` block. `environment` is what commands need to find it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reelwright-slurm-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        ports = free_ports(3)
        text = _CONFIG.format(
            host=socket.gethostname(),
            folder=self.folder,
            controller_port=ports[0],
            first_port=ports[1],
            second_port=ports[2],
        )
        (self.folder / "slurm.conf").write_text(text)
        for name in ("state", "munge", *(f"d-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        try:
            self._start_munge()
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            self.wait_for_nodes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")
        for node in NODES:
            self.kill_node(node)
        for process in self._daemons.values():
            process.kill()
            process.wait()
        for left in psutil.process_iter():  # steps that would tell the controller of their end
            with contextlib.suppress(psutil.Error):
                if left.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    left.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        return subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def start_controller(self) -> None:
        """Start the controller, or start it again with what it knew; nothing where it runs."""
        if "slurmctld" not in self._daemons:
            self._daemon("slurmctld", "slurmctld", "-D", "-i")

    def stop_controller(self) -> None:
        """As for an update of SLURM: what runs goes on, and no command gets an answer."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(60)

    def start_node(self, node: str) -> None:
        """Start a node, or start it again."""
        self._daemon(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if its power was cut: slurmd and all that runs under it are killed at once."""
        daemon = self._daemons.pop(node, None)
        victims = [process for process in psutil.process_iter() if self._node_of(process) == node]
        if daemon is not None:
            daemon.kill()
            daemon.wait()
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def restart_node(self, node: str) -> None:
        """Start a node that was killed; no job is left on either.

        SLURM is told that it was down: else the jobs it had would be completing for minutes.
        """
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")
        self.start_node(node)
        self.run("scancel", "--user=root")
        self.wait_for_nodes()

    def processes(self, node: str, *, holding: str) -> list[psutil.Process]:
        """Processes of jobs on a node with a text in their command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._node_of(process) == node and holding in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_for_nodes(self, *, state: str = "idle") -> None:
        """Until both nodes are ready. Raises TimeoutError with the logs of the controller."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(subprocess.CalledProcessError):
                if self.run("sinfo", "--noheader", "--Node", "--format=%T").split() == [state] * len(NODES):
                    return
            time.sleep(0.2)
        log = (self.folder / "ctld.log").read_text(errors="replace")
        raise TimeoutError(f"SLURM's nodes are not {state} after {_START_SECONDS} s:\n{log[-3000:]}")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        places = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / name}" for option, name in places.items()]
        self._daemon("munged", "munged", "--foreground", *options)
        until = time.monotonic() + _START_SECONDS
        while not (folder / "socket").exists():
            if time.monotonic() > until or self._daemons["munged"].poll() is not None:
                raise TimeoutError(f"munged did not start: {(self.folder / 'munged.out').read_text()}")
            time.sleep(0.05)

    def _node_of(self, process: psutil.Process) -> str | None:
        """The node on whose behalf a process runs: of jobs by their environment, of daemons by their name.

        None for processes of another cluster on this machine.
        """
        try:
            command, environment = process.cmdline(), process.environ()
        except psutil.Error:
            return None
        if environment.get("SLURM_CONF") != self.environment["SLURM_CONF"]:
            return None
        if "SLURMD_NODENAME" in environment:
            return environment["SLURMD_NODENAME"]
        return command[-1] if command and Path(command[0]).name == "slurmd" and "-N" in command else None

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


if __name__ == "__main__":  # to try things by hand: python -m tests.slow.slurm COMMAND ...
    with Slurm() as slurm:
        sys.exit(subprocess.run(sys.argv[1:], env={**os.environ, **slurm.environment}, check=False).returncode)
