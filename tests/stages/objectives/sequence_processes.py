"""Run by test_sequence.py in each of two processes: each has its part of a batch, uneven, or none that counts.

The first prints, as one line of JSON, of every objective the loss of the whole batch, and the gradients of all rows.
"""

from __future__ import annotations

import json
import os

import torch
import torch.distributed as dist

from reelwright.stages.objectives.config import SequenceObjectiveSettings
from reelwright.stages.objectives.contract import batch_loss
from reelwright.stages.objectives.sequence import sequence_objective

LENGTH, SIZE, CLASSES = 6, 4, 3
NUM_VIDEOS = 5
OBJECTIVES = {
    **{f"scl {kind}": {"negatives": kind} for kind in ("single_noself", "single", "batch_noself", "batch")},
    "scl compat": {"compat": True},
    **{f"tcc {form}": {"name": "tcc", "form": form} for form in ("regression_mse_var", "classification")},
    "tcn": {"name": "tcn"},
    "per_frame": {"name": "per_frame"},
}
SPLITS = {"3 and 2": 3, "all and none": NUM_VIDEOS}  # videos of the first process


def whole_batch(num_views):
    """Outputs and entries of five videos, ``num_views`` of each; some rows are masked, some labels unknown."""
    generator = torch.Generator().manual_seed(5)
    count = NUM_VIDEOS * num_views
    z = torch.nn.functional.normalize(torch.randn(count, LENGTH, SIZE, generator=generator), dim=-1)
    mask = torch.ones(count, LENGTH, dtype=torch.bool)
    mask[1, 4:] = False
    mask[-1, 2:] = False
    batch = {
        "mask": mask,
        "row_numbers": torch.randint(0, 30, (count, LENGTH), generator=generator).sort(1).values,
        "num_rows": torch.full((count,), 30),
        "targets": torch.randint(-1, CLASSES, (count, LENGTH), generator=generator),
    }
    return {"embedding": z, "logits": torch.randn(count, LENGTH, CLASSES, generator=generator)}, batch


def part_of(values, start, stop):
    return {name: value[start:stop].clone() for name, value in values.items()}


def found(name, outputs, batch, *, is_shared, is_counted=True):
    """The loss times its weight, the weight, and the gradient of the weighted loss."""
    objective = sequence_objective(SequenceObjectiveSettings(**OBJECTIVES[name]))
    key = "logits" if name == "per_frame" else "embedding"
    outputs = {**outputs, key: outputs[key].detach().clone().requires_grad_()}
    loss = batch_loss(objective, outputs, batch, is_shared=is_shared, is_counted=is_counted).total
    weight = objective.weight(batch) * float(is_counted)
    total = weight.clone()
    if is_shared:
        dist.all_reduce(total)
    share = loss * weight / total
    share.backward()
    return share.detach(), outputs[key].grad


def main():
    dist.init_process_group("gloo")
    rank, results = dist.get_rank(), {}
    for name, options in OBJECTIVES.items():
        num_views = 2 if options.get("name", "scl") == "scl" else 1
        outputs, batch = whole_batch(num_views)
        alone, gradient = found(name, dict(outputs), batch, is_shared=False)
        for split, count in SPLITS.items():
            is_counted = rank == 0 or count < NUM_VIDEOS
            start, stop = (0, count) if rank == 0 else (count, NUM_VIDEOS)
            if not is_counted:
                start, stop = 0, 1  # a stand-in
            rows = slice(start * num_views, stop * num_views)
            own = part_of(outputs, rows.start, rows.stop), part_of(batch, rows.start, rows.stop)
            share, own_gradient = found(name, *own, is_shared=True, is_counted=is_counted)
            dist.all_reduce(share)
            together = torch.zeros_like(gradient)
            if is_counted:
                together[rows] = own_gradient
            else:
                assert (own_gradient == 0).all(), name
            dist.all_reduce(together)
            results[f"{name}, {split}"] = [float(alone), float(share), gradient.tolist(), together.tolist()]
    if rank == 0:
        print(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
