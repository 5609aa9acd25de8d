"""What this machine can do: libraries that load, GPUs, decoders. For `doctor`; each check tells, none raises."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from typing import Any

CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")


def libraries(names: tuple[str, ...]) -> dict[str, str]:
    """Name of a module -> why it does not load; nothing for those that do."""
    problems = {}
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            problems[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return problems


def gpus() -> list[str]:
    """Names and memory of the GPUs that torch can use."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(index)
        found.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return found


def driver_gpus() -> int:
    """GPUs that the driver lists, whether torch can use them or not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        message = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=20).stdout  # noqa: S603 - found by name, no input
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in message.splitlines())


def missing_decoders() -> list[str]:
    """Codecs of `CODECS` that PyAV's FFmpeg cannot decode."""
    import av

    return [name for name in CODECS if name not in av.codecs_available]
