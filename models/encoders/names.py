"""Names of encoders and of their arguments, without torch: what is installed is read as text.

timm and torchvision take seconds to import; a slip is to be reported at once. A name is refused only where it stands
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
X3D_NAMES = ("x3d_xs", "x3d_s", "x3d_m", "x3d_l", "x3d_xl")
VIDEOMAE_NAMES = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")
HUB = "hf-hub:"
NO_FILE = ("hub", "none")  # what settings say of weights that are in no file
_OF_TIMM = ("timm", "tsm", "frames")  # libraries whose networks are timm's

OWN_NETWORKS = {"x3d": X3D_NAMES, "videomae": VIDEOMAE_NAMES}

_ENTRY_POINT = re.compile(r"^@register_model\s*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
_ARGUMENT = re.compile(r"\b([a-z]\w*)\s*[:=]")
_FOLDERS = {"timm": ("timm/models", "timm/layers"), "torchvision": ("torchvision/models",)}
OWN_ARGUMENTS = {
    "tsm": ("shift_div",),  # besides those of timm
    "x3d": (
        "depth",
        "width",
        "bottleneck",
        "head_dim",
        "dropout",
        "clip_length",
        "train_size",
        "test_size",
        "num_classes",
    ),
    "videomae": (
        "width",
        "depth",
        "heads",
        "mlp_ratio",
        "patch_size",
        "tubelet",
        "img_size",
        "clip_length",
        "norm",
        "positions",
        "num_classes",
    ),
    "frames": ("clip_length", "every"),  # besides those of timm
}


def check_encoder(name: str, *, outputs: Sequence[str], model_args: Mapping[str, object]) -> None:
    """ValueError, naming the nearest, for an encoder, an output or an argument of the model that there is not."""
    parse_outputs(outputs)
    if name.startswith(HUB) and len(name) > len(HUB):
        return  # its arguments are known once its config is fetched
    library, _, model_name = name.partition("/")
    if not _is_known(library, model_name):
        raise ValueError(unknown_encoder(name))
    for argument in model_args:
        if not _is_argument(library, argument):
            texts = () if library in OWN_NETWORKS else _sources(library).values()
            known = {*OWN_ARGUMENTS.get(library, ())}.union(*map(_ARGUMENT.findall, texts))
            raise ValueError(f"model_args: {argument!r} is no argument of {name}{_nearest(argument, known)}.")


def _is_known(library: str, model_name: str) -> bool:
    if library == "tsm":
        return _is_timm(model_name) and model_name.partition(".")[0] in tsm_models()
    if library in _OF_TIMM:
        return _is_timm(model_name)
    return model_name in {"torchvision": VIDEO_NAMES, **OWN_NETWORKS}.get(library, ())


def _is_argument(library: str, argument: str) -> bool:
    own = OWN_ARGUMENTS.get(library, ())
    return argument in own or (
        library not in OWN_NETWORKS and _stands_in(library, argument, rf"\b{re.escape(argument)}\b")
    )


def tsm_models() -> set[str]:
    """Names of timm's models, without tags, that take temporal shifts: its ResNets and MobileNetV2s."""
    files = {file.name: _ENTRY_POINT.findall(text) for file, text in _sources("timm").items()}
    return {*files["resnet.py"]} | {name for name in files["efficientnet.py"] if name.startswith("mobilenetv2_")}


def is_of_library(name: str) -> bool:
    """Whether a name says that the encoder is timm's, torchvision's, of timm's hub, or one of our own."""
    return name.startswith(HUB) or name.partition("/")[0] in {*_FOLDERS, *OWN_ARGUMENTS}


def has_hub_weights(name: str) -> bool:
    """Whether there may be pretrained weights of the encoder to fetch; X3D's and VideoMAE's come as a file alone."""
    return name.partition("/")[0] not in OWN_NETWORKS


def is_video_encoder(name: str) -> bool:
    """Whether an encoder of the name takes clips."""
    return name.partition("/")[0] in {"torchvision", "tsm", "frames", *OWN_NETWORKS}


def unknown_encoder(name: str, known_timm: Iterable[str] | None = None) -> str:
    """The message for an encoder that is not known; `known_timm` without it: timm's models as its sources have them."""
    timm_names = sorted(timm_models()) if known_timm is None else list(known_timm)
    known = [f"torchvision/{model}" for model in VIDEO_NAMES] + [f"timm/{model}" for model in timm_names]
    known += [f"{library}/{model}" for library, models in OWN_NETWORKS.items() for model in models]
    known += [f"tsm/{model}" for model in sorted(tsm_models())]
    known += [f"frames/{model}" for model in timm_names]
    base = name.partition(".")[0] if known_timm is None else name
    nearest = difflib.get_close_matches(base, known, n=3, cutoff=0.4)
    # A missing or wrong library is the commonest slip, and too far from the full name for difflib.
    model_name = name.rpartition("/")[2]
    nearest = [full for full in known if full.partition("/")[2] == model_name] or nearest
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    allowed = "timm/NAME, hf-hub:org/name, torchvision/NAME, tsm/NAME, x3d/NAME, videomae/NAME, frames/NAME"
    return f"encoder {name!r} is not known; allowed: {allowed}{hint}."


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
    library = "timm" if library in _OF_TIMM else library
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise ValueError(f"encoders of {library} need the package {library}, which is not installed.")
    root = Path(spec.origin).parent.parent
    files = (file for folder in _FOLDERS[library] for file in sorted((root / folder).rglob("*.py")))
    return {file: file.read_text(encoding="utf-8") for file in files}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_weights(weights: str, encoder: str | None, *, is_own: bool, renames: object) -> None:
    """ValueError for weights that no hub has (``is_own``: of a plug-in), and ``renames`` of what is in no file."""
    if weights in NO_FILE and renames:
        raise ValueError(f"prefix and key_map are of names in a file, but weights is {weights}; leave them out")
    if weights == "hub" and is_own:
        raise ValueError("weights: hub has none of an encoder that is a plug-in; set weights: none, or a file")
    if weights == "hub" and encoder is not None and not has_hub_weights(encoder):
        raise ValueError(f"weights: hub has none of {encoder}; set weights: none (random ones), or a file")
