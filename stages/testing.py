"""What objectives and evaluators have to do, for authors of plug-ins: classes of tests to subclass.

class TestLoss(ObjectiveTests):
    def build(self, sizes): return Loss(sizes, pull=0.2)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from reelwright.stages.datasets.tasks.registry import TASKS
from reelwright.stages.evaluate.evaluators import Predicted
from reelwright.stages.objectives.contract import LossParts, Objective, TargetSizes

_BATCH, _CLASSES, _ROWS = 6, 3, 5


class ObjectiveTests:
    """Subclass it in a test module, with `build`; for task per_row, unless `logits` and `targets` say otherwise."""

    extra: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Outputs beside logits that it needs, and their shapes without the batch."""
    task: str = "per_row"

    def build(self, sizes: TargetSizes) -> Objective:
        """The objective, with any options."""
        raise NotImplementedError

    def logits(self) -> Tensor:
        """Of a batch."""
        shape = (_BATCH, _ROWS, _CLASSES) if TASKS[self.task].per_row else (_BATCH, _CLASSES)
        return torch.randn(shape)

    def targets(self) -> Tensor:
        """Of the same batch."""
        shape = (_BATCH, _ROWS) if TASKS[self.task].per_row else (_BATCH,)
        return torch.randint(0, _CLASSES, shape)

    def _built(self) -> Objective:
        torch.manual_seed(0)
        return self.build(TargetSizes(self.task, np.full(_CLASSES, 10)))

    def _given(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        torch.manual_seed(1)
        outputs = {name: torch.randn(_BATCH, *shape) for name, shape in self.extra.items()}
        outputs = {"logits": self.logits(), **outputs}
        return {name: value.requires_grad_() for name, value in outputs.items()}, {"targets": self.targets()}

    def test_it_is_an_objective_that_learns_nothing_itself(self) -> None:
        """What learns belongs to the model."""
        objective = self._built()
        assert isinstance(objective, Objective)
        assert not [name for name, value in objective.named_parameters() if value.requires_grad]

    def test_the_loss_is_finite_and_has_gradients(self) -> None:
        """One number, of which some output has a gradient."""
        outputs, batch = self._given()
        found = self._built().train()(outputs, batch)
        assert isinstance(found, LossParts)
        assert found.total.shape == ()
        assert math.isfinite(found.total.item())
        found.total.backward()  # type: ignore[no-untyped-call]
        assert any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in outputs.values())

    def test_its_parts_add_up_and_are_always_the_same_ones(self) -> None:
        """In training and in evaluation."""
        outputs, batch = self._given()
        objective = self._built()
        in_training, in_evaluation = objective.train()(outputs, batch), objective.eval()(outputs, batch)
        assert set(in_training.parts) == set(in_evaluation.parts)
        for found in (in_training, in_evaluation):
            if found.parts:
                torch.testing.assert_close(sum(found.parts.values()), found.total, rtol=1e-4, atol=1e-6)

    def test_evaluation_changes_nothing(self) -> None:
        """Buffers are as before, so that how often is evaluated does not matter."""
        outputs, batch = self._given()
        objective = self._built().eval()
        before = {name: value.clone() for name, value in objective.state_dict().items()}
        objective(outputs, batch)
        assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())

    def test_what_it_remembers_is_in_its_state(self) -> None:
        """One that goes on from a checkpoint gives what the first would have given."""
        outputs, batch = self._given()
        first, second = self._built().train(), self._built().train()
        first(outputs, batch)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(outputs, batch).total, second(outputs, batch).total)


class EvaluatorTests:
    """Subclass it in a test module, with `build`."""

    task: str = "per_row"

    def build(self) -> Callable[[Predicted], Mapping[str, float]]:
        """The evaluator, with any options."""
        raise NotImplementedError

    def predicted(self, num_entries: int = 12) -> Predicted:
        """Predictions of three videos."""
        rng = np.random.default_rng(0)
        scores = rng.random((num_entries, _CLASSES), dtype=np.float32) + 0.1
        of_sets = TASKS[self.task].of_sets or TASKS[self.task].has_heads
        targets: Any = rng.random((num_entries, _CLASSES)) < 0.5 if of_sets else rng.integers(-1, _CLASSES, num_entries)
        return Predicted(
            classes=("a", "b", "c"),
            task=self.task,
            unit="rows" if TASKS[self.task].per_row else "windows",
            video_ids=tuple(f"video{number * 3 // num_entries}" for number in range(num_entries)),
            start_seconds=np.arange(num_entries, dtype=np.float64) / 5,
            scores=scores / scores.sum(axis=1, keepdims=True),
            targets=targets,
        )

    def test_it_gives_names_and_finite_numbers(self) -> None:
        """A mapping; the same for the same predictions."""
        found = self.build()(self.predicted())
        assert found
        assert all(isinstance(name, str) and math.isfinite(value) for name, value in found.items())
        assert dict(found) == dict(self.build()(self.predicted()))

    def test_predictions_stay_as_they_are(self) -> None:
        """Others measure them too."""
        given, same = self.predicted(), self.predicted()
        self.build()(given)
        for name in ("scores", "targets", "start_seconds"):
            np.testing.assert_array_equal(getattr(given, name), getattr(same, name))

    def test_few_predictions_are_enough(self) -> None:
        """A split may have one video with one window."""
        assert all(math.isfinite(value) for value in self.build()(self.predicted(1)).values())
