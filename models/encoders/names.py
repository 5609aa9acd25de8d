"""Names of encoders and of their arguments, without torch: what is installed is read as text.

timm and torchvision take seconds to import; a slip is to be told at once. A name is refused only where it stands
nowhere in the library's sources, so that nothing that the library would take is refused.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from reelwright.models.encoders.outputs import parse_outputs

VIDEO_NAMES = (
    "r3d_18",
    "mc3_18",
    "r2plus1d_18",
    "s3d",
    "mvit_v1_b",
    "mvit_v2_s",
    "swin3d_t",
    "swin3d_s",
    "swin3d_b",
)  # of torchvision
HUB = "hf-hub:"

_ENTRY_POINT = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_ARGUMENT = re.compile(r"\b([a-z]\w*)\s*[:=]")
_FOLDERS = {"timm": ("timm/models", "timm/layers"), "torchvision": ("torchvision/models",)}


def check_encoder(name: str, *, outputs: Sequence[str], model_args: Mapping[str, object]) -> None:
    """ValueError, naming the nearest, for an encoder, an output or an argument of the model that there is not."""
    parse_outputs(outputs)
    if name.startswith(HUB) and len(name) > len(HUB):
        return  # its arguments are known once its config is fetched
    library, _, model_name = name.partition("/")
    if not (_is_timm(model_name) if library == "timm" else library == "torchvision" and model_name in VIDEO_NAMES):
        raise ValueError(unknown_encoder(name))
    for argument in model_args:
        if not _stands_in(library, argument, rf"\b{re.escape(argument)}\b"):
            known = {found for text in _sources(library).values() for found in _ARGUMENT.findall(text)}
            raise ValueError(f"model_args: {argument!r} is no argument of {name}{_nearest(argument, known)}.")


def is_of_library(name: str) -> bool:
    """Whether a name says that the encoder is timm's, torchvision's or of timm's hub."""
    return name.startswith(HUB) or name.partition("/")[0] in _FOLDERS


def is_video_encoder(name: str) -> bool:
    """Whether an encoder of the name takes clips."""
    return name.partition("/")[0] == "torchvision"


def unknown_encoder(name: str, known_timm: Iterable[str] | None = None) -> str:
    """The message for an encoder that is not known; `known_timm` without it: timm's models as its sources have them."""
    timm_names = sorted(timm_models()) if known_timm is None else list(known_timm)
    known = [f"torchvision/{model}" for model in VIDEO_NAMES] + [f"timm/{model}" for model in timm_names]
    base = name.partition(".")[0] if known_timm is None else name
    nearest = difflib.get_close_matches(base, known, n=3, cutoff=0.4)
    # A missing or wrong library is the commonest slip, and too far from the full name for difflib.
    model_name = name.rpartition("/")[2]
    nearest = [full for full in known if full.partition("/")[2] == model_name] or nearest
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"encoder {name!r} is not known; allowed: timm/NAME, hf-hub:org/name, torchvision/NAME{hint}."


def timm_models() -> set[str]:
    """Names of timm's models, without tags, as its sources register them."""
    return {name for text in _sources("timm").values() for name in _ENTRY_POINT.findall(text)}


def _is_timm(name: str) -> bool:
    """Whether `NAME` or `NAME.TAG` may be one of timm's, old names that it still takes included."""
    base, _, tag = name.partition(".")
    quoted = rf"['\"]{re.escape(base)}['\"]"
    if not base or not _stands_in("timm", base, rf"^def {re.escape(base)}\(|{quoted}"):
        return False
    any_tag = rf"['\"]{re.escape(base)}\.[\w.]+['\"]"  # where the tags are not spelt out, none can be refused
    return not tag or _stands_in("timm", name, rf"['\"]{re.escape(name)}['\"]") or not _stands_in("timm", base, any_tag)


def _stands_in(library: str, word: str, pattern: str) -> bool:
    """Whether ``pattern``, in which ``word`` stands, is found; looking for the word first is ten times as quick."""
    found = re.compile(pattern, re.MULTILINE)
    return any(word in text and found.search(text) for text in _sources(library).values())


@functools.cache
def _sources(library: str) -> dict[Path, str]:
    """The sources of a library's models. Raises ValueError where it is not installed."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise ValueError(f"encoders of {library} need the package {library}, which is not installed.")
    root = Path(spec.origin).parent.parent
    files = (file for folder in _FOLDERS[library] for file in sorted((root / folder).rglob("*.py")))
    return {file: file.read_text(encoding="utf-8") for file in files}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
