"""DVC and Snakemake for the scale benchmark: installed from the package index, and set up as their users would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PER_FOLDER = 1000
INSTALL_SECONDS = 900
LOG = "computed.txt"  # a line an item that was computed

# What a stage or rule runs: every item of its arguments, or of the folder. Stand-ins are copied, videos are embedded.
COMMAND = """
import sys
from pathlib import Path

def embed(sources, targets):
    import av, numpy as np, timm, torch
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    for source, target in zip(sources, targets):
        with av.open(str(source)) as container:
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        batch = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            np.save(target, model(torch.nn.functional.interpolate(batch, (160, 160))).numpy())

def copy(sources, targets):
    for source, target in zip(sources, targets):
        target.write_bytes(source.read_bytes())

if sys.argv[1] == "--folder":
    sources = sorted(path for path in Path("data").rglob("*") if path.is_file())
    targets = [Path("out", *path.parts[1:]).with_suffix(".npy") for path in sources]
else:
    sources, targets = [Path(sys.argv[1])], [Path(sys.argv[2])]
for folder in {target.parent for target in targets}:
    folder.mkdir(parents=True, exist_ok=True)
(embed if sources[0].suffix == ".mp4" else copy)(sources, targets)
with open("computed.txt", "a") as log:
    log.writelines(f"{source}\\n" for source in sources)
"""
SNAKEFILE = """
from pathlib import Path
ITEMS = [str(path.relative_to("data").with_suffix("")) for path in Path("data").rglob("*") if path.is_file()]
rule all:
    input: expand("out/{{item}}.npy", item=ITEMS)
rule embed:
    input: "data/{{item}}{suffix}"
    output: "out/{{item}}.npy"
    shell: "{python} embed.py {{input}} {{output}}"
"""
DVC_FILE = """
stages:
  embed:
    cmd: {python} embed.py --folder
    deps: [data, embed.py]
    outs: [out]
"""


@dataclass(frozen=True)
class Peer:
    """One tool in one folder of items."""

    program: Path
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]

    def run(self, *more: str, limit_seconds: float) -> None:
        """Run the tool. Raises TimeoutExpired, or AssertionError with what it said."""
        command = [str(self.program), *(more or self.arguments)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit_seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

    def computed(self) -> int:
        """Items computed since the last call."""
        log = self.folder / LOG
        count = len(log.read_text().splitlines()) if log.exists() else 0
        log.unlink(missing_ok=True)
        return count


def install(name: str, folder: Path) -> Path | str:
    """The program of a tool, installed into a virtual environment of its own; else, in words, why there is none."""
    program = folder / name / "bin" / name
    if program.exists():
        return program
    steps: Sequence[Sequence[str]] = (
        [sys.executable, "-m", "venv", str(folder / name)],
        [str(folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet", name],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        message = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        shutil.rmtree(folder / name, ignore_errors=True)
        return f"{name} could not be installed from the package index: {message[-1] if message else error}"
    return program if program.exists() else f"{name}: its package has no program {name}"


def dvc(program: Path, folder: Path, *, limit_seconds: float) -> Peer:
    """DVC in a Git repository: one stage with a folder as dependency and a folder as output, run once."""
    peer = Peer(program, ("repro",), folder, _environment(folder, program))
    _write_command(folder)
    (folder / "dvc.yaml").write_text(DVC_FILE.format(python=sys.executable))
    (folder / ".gitignore").write_text(f"{LOG}\n/data\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, env=peer.environment, check=True)
    peer.run("init", "--quiet", limit_seconds=limit_seconds)
    peer.run(limit_seconds=limit_seconds)
    return peer


def snakemake(program: Path, folder: Path, *, limit_seconds: float) -> Peer:
    """Snakemake: one rule with a wildcard. Its outputs are made in one process: a job an item would take hours."""
    peer = Peer(program, ("--cores", "1"), folder, _environment(folder, program))
    _write_command(folder)
    suffix = next(path.suffix for path in (folder / "data").rglob("*") if path.is_file())
    (folder / "Snakefile").write_text(SNAKEFILE.format(python=sys.executable, suffix=suffix))
    made = [sys.executable, "embed.py", "--folder"]
    subprocess.run(made, cwd=folder, env=peer.environment, check=True, timeout=limit_seconds)
    return peer


def _write_command(folder: Path) -> None:
    (folder / "embed.py").write_text(COMMAND)


def _environment(folder: Path, program: Path) -> dict[str, str]:
    """A home of its own, and nothing told to anybody."""
    home = folder.with_name(f"{folder.name}-home")
    home.mkdir(exist_ok=True)
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(home)}
    return {**os.environ, **own, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
