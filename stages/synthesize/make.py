"""Make one sample or one class: what a process does. Arguments and results are plain data."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from reelwright.stages.synthesize.config import SynthesizeConfig
from reelwright.stages.synthesize.encode import as_colour, write_images, write_rows, write_video
from reelwright.stages.synthesize.families.class_files import SUFFIX, read_class, write_class
from reelwright.stages.synthesize.families.table import FAMILIES, Frames, Parameters, is_degenerate
from reelwright.stages.synthesize.ledger import FRAME_STORE, Made, digest_of
from reelwright.stages.synthesize.samples import Sample, class_stream, generator_of, variation_of
from reelwright.storage.digests import digest
from reelwright.storage.errors import ItemError
from reelwright.storage.store import backend_of

MAX_ATTEMPTS = 50


def make_sample(folder: Path, config: SynthesizeConfig, sample: Sample, class_file: Path | None) -> Made:
    """Render one sample and put it in place; the result says so where every draw was degenerate."""
    started = time.perf_counter()
    try:
        frames, num_rejected = render_sample(config, sample, class_file)
    except ItemError as error:
        return _failed(sample.name, label=sample.label, split=sample.split, started=started, error=error)
    paths, num_bytes = _write(folder, config, sample, frames)
    made = Made(
        name=sample.name,
        label=sample.label,
        split=sample.split,
        paths=paths,
        num_frames=len(frames),
        num_bytes=num_bytes,
        seconds=time.perf_counter() - started,
        num_rejected=num_rejected,
        digest=digest_of(folder, paths),
    )
    backend_of(folder).free(folder / path for path in paths)
    return made


def render_sample(config: SynthesizeConfig, sample: Sample, class_file: Path | None) -> tuple[Frames, int]:
    """Frames of a sample, and how many degenerate draws were rejected before. Raises ItemError after too many."""
    known = _known_class(config.family, sample.label, class_file)
    _, frames, num_rejected = _drawn(config, sample.stream, sample.index, known=known, what=sample.name)
    return frames, num_rejected


def _drawn(
    config: SynthesizeConfig, stream: int, index: int, *, known: Parameters | None, what: str
) -> tuple[Parameters, Frames, int]:
    """Parameters (new ones unless they are known) and frames that are not degenerate, and how many were before."""
    family, parameters = FAMILIES[config.family], known
    for attempt in range(MAX_ATTEMPTS):
        rng = generator_of(config, stream, index, attempt)
        if known is None:
            assert family.draw_class is not None  # else its classes are known
            parameters = family.draw_class(rng, config, variation=variation_of(config, stream, index))
        assert parameters is not None
        frames = family.render(parameters, rng=rng, config=config, is_instance=known is not None)
        if not (family.is_black_behind and is_degenerate(frames, is_still=config.is_still)):
            return parameters, frames, attempt
    raise ItemError("degenerate", f"{what}: nothing to be seen in any of {MAX_ATTEMPTS} draws")


def make_class(folder: Path, config: SynthesizeConfig, number: int) -> Made:
    """Draw class ``number``, from 1, until its own video is not degenerate, and write its class file."""
    started = time.perf_counter()
    try:
        parameters, num_rejected = draw_class(config, number)
    except ItemError as error:
        return _failed(str(number), label="", split="", started=started, error=error)
    name = class_name(config, number)
    path = folder / f"{name}{SUFFIX}"
    write_class(path, parameters)
    return Made(
        name=name,
        label=name,
        split="",
        paths=(path.name,),
        num_bytes=path.stat().st_size,
        seconds=time.perf_counter() - started,
        num_rejected=num_rejected,
        digest=digest_of(folder, [path.name]),
    )


def class_name(config: SynthesizeConfig, number: int) -> str:
    """`<number>`, with the variation of fractals, `<number>-<variation>`."""
    if config.family != "fractal":
        return str(number)
    return f"{number}-{variation_of(config, *class_stream(number))}"


def draw_class(config: SynthesizeConfig, number: int) -> tuple[Parameters, int]:
    """The parameters of a class, and how many were rejected before. Raises ItemError after too many."""
    parameters, _, num_rejected = _drawn(config, *class_stream(number), known=None, what=f"class {number}")
    return parameters, num_rejected


def _known_class(family: str, label: str, class_file: Path | None) -> Parameters | None:
    """Read for every sample, in a fifth of a millisecond: another data set may have another file of this name."""
    parameters_of = FAMILIES[family].parameters_of
    if parameters_of is not None:
        return parameters_of(label)
    return None if class_file is None else read_class(class_file, family=family)


def _write(folder: Path, config: SynthesizeConfig, sample: Sample, frames: Frames) -> tuple[tuple[str, ...], int]:
    """(paths, bytes) of what was written."""
    if config.into == "frames":
        name = digest({"synthesized": config.content(), "label": sample.label, "index": sample.index})
        num_bytes = write_rows(folder / FRAME_STORE, name, frames, fps=config.fps)
        return (f"{FRAME_STORE}/{name}",), num_bytes
    if config.is_still:
        names = tuple(f"{sample.name}-{number}.jpg" for number in range(len(frames)))
        write_images([folder / name for name in names], frames)
    else:
        names = (f"{sample.name}.mp4",)
        colour = as_colour(np.ascontiguousarray(frames))
        size = (colour.shape[1], colour.shape[2])
        write_video(folder / names[0], colour, size=size, fps=config.fps, codec=config.codec)
    return names, sum((folder / name).stat().st_size for name in names)


def _failed(name: str, *, label: str, split: str, started: float, error: ItemError) -> Made:
    return Made(
        name=name,
        label=label,
        split=split,
        seconds=time.perf_counter() - started,
        num_rejected=MAX_ATTEMPTS,
        problem=str(error),
    )
