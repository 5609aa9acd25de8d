"""The demo's procedures as recordings of frames and label files, in the layout of IndustReal: a stand-in for it.

    folder/
      dataset.json           the parameters, written first: recordings found later are known to be made from them
      procedure.yaml         what `prepare` and `steps` read
      procedure_info.json    the same in the form of the public data set
      recordings/SPLIT/NN_assy_0_J/rgb/000000.jpg, PSR_labels.csv, PSR_labels_with_errors.csv, PSR_labels_raw.csv

A recording is put in place whole; a killed call is taken up by calling again.
"""

from __future__ import annotations

import math
from pathlib import Path

import yaml
from PIL import Image

from reelwright.models.systems.step_states import steps_of_states
from reelwright.stages.steps.procedure import Procedure
from reelwright.stages.synthesize.family_settings import ProcedureSettings
from reelwright.stages.synthesize.ledger import claim
from reelwright.stages.synthesize.procedures.life import kit_of
from reelwright.stages.synthesize.procedures.render import Renderer
from reelwright.stages.synthesize.procedures.script import Script
from reelwright.stages.synthesize.procedures.write import (
    DatasetParameters,
    Progress,
    VideoJob,
    list_jobs,
    make_missing,
)
from reelwright.storage.files import replacing_folder, write_json, write_text

VERSION = 1  # raised by hand when the same parameters give other recordings
KIND = "assy"
JPEG_QUALITY = 90


def demo_procedure(fps: float, settings: ProcedureSettings | None = None) -> Procedure:
    """The demo's procedure: four parts (or seven), whose steps have the names of the phases.

    Its states are those of the usual orders; where steps are out of place there are others too.
    """
    settings = settings or ProcedureSettings()
    kit = kit_of(settings)
    parts = tuple(kit.phases)
    orders = tuple(kit.orders.values())[: 1 if settings.usual_order else None]
    states = {
        tuple(sorted((0, *map(parts.index, order[:count])))) for order in orders for count in range(len(order) + 1)
    }
    listed = sorted(states, key=lambda mounted: (len(mounted), mounted))
    return Procedure(
        name="demo",
        fps=fps,
        components=kit.components,
        steps={3 * index: step for index, step in enumerate(kit.phases.values())},
        states=tuple("".join(str(int(part in state)) for part in range(len(parts))) for state in listed),
        procedures={KIND: {"match": f"*_{KIND}_*", "initial": "0" * len(parts)}},
    )


def make_recordings(
    folder: Path, parameters: DatasetParameters, *, workers: int = 1, progress: Progress | None = None
) -> None:
    """Write all recordings of a data set; those that are there are kept. ``progress(num_done, num_all)``.

    Raises InputError when the folder holds a data set of other parameters or files that are not ours.
    """
    claim(folder, {**parameters.plain(), "layout": f"industreal {VERSION}"})
    procedure = demo_procedure(parameters.fps, parameters.settings)
    plain = procedure.model_dump(mode="json", exclude_defaults=True)
    write_text(folder / "procedure.yaml", yaml.safe_dump(plain, sort_keys=False))
    write_json(folder / "procedure_info.json", _info(procedure))
    make_missing(folder, list_jobs(parameters), write_recording, place=_place, workers=workers, progress=progress)


def write_recording(folder: Path, job: VideoJob) -> None:
    """Render one recording and put it in place whole."""
    script, look = job.script_and_look()
    renderer = Renderer(look, size=(job.parameters.height, job.parameters.width), work_centre=script.work_centre)
    with replacing_folder(folder / _place(job)) as place:
        (place / "rgb").mkdir()
        for index, frame in enumerate(renderer.frames(script)):
            Image.fromarray(frame).save(place / "rgb" / f"{index:06d}.jpg", quality=JPEG_QUALITY)
        for name, text in _labels(script, demo_procedure(script.fps, job.parameters.settings)).items():
            (place / name).write_text(text, encoding="utf-8")


def _place(job: VideoJob) -> Path:
    variant = tuple(kit_of(job.parameters.settings).orders).index(job.variant)
    first = {"train": 0, "val": job.parameters.num_train, "test": job.parameters.num_train + job.parameters.num_val}
    return Path("recordings", job.split, f"{first[job.split] + job.index + 1:02d}_{KIND}_0_{variant + 1}")


def _labels(script: Script, procedure: Procedure) -> dict[str, str]:
    """The three label files. A step is complete in the first frame that shows it; a frame has the last state in it."""
    last = {
        min(math.ceil(seconds * script.fps - 1e-6), script.num_frames - 1): state for seconds, state in script.states
    }
    raw = list(last.items())

    def listed(*, include_errors: bool) -> str:
        steps = steps_of_states(raw, include_errors=include_errors).steps
        return "".join(_row(int(frame), step, procedure.step_names[step]) for frame, step in steps)

    return {
        "PSR_labels_raw.csv": "".join(_row(frame, *state) for frame, state in raw),
        "PSR_labels.csv": listed(include_errors=False),
        "PSR_labels_with_errors.csv": listed(include_errors=True),
    }


def _row(frame: int, *cells: object) -> str:
    return ",".join([f"{frame:06d}.jpg", *map(str, cells)]) + "\n"


def _info(procedure: Procedure) -> list[dict[str, object]]:
    expected = procedure.expected(KIND)
    return [
        {
            "id": step,
            "description": name,
            "install": procedure.action_of(step) != "remove",
            "state_idx": step // 3,
            "expected_in_assy": step in expected,
            "expected_in_main": False,
            "expected_before_subgoal": False,
        }
        for step, name in enumerate(procedure.step_names)
    ]
