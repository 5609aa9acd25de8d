"""The trainer of train, which here counts the untrained start as a candidate for the best weights."""

from __future__ import annotations

from reelwright.stages.learning.batches import Batches
from reelwright.stages.learning.checkpoints import save_weights
from reelwright.stages.learning.trainer import Evaluate, Progress, Trainer


class StartingTrainer(Trainer):
    """Judges the weights it starts from, as epoch 0, so that the best weights are never worse on val than those."""

    _judge: Evaluate | None = None

    def fit(self, batches: Batches, evaluate: Evaluate | None = None) -> Progress:
        """As `Trainer.fit`."""
        self._judge = evaluate
        return super().fit(batches, evaluate)

    def _resume(self) -> None:
        super()._resume()
        if self._judge is None or self.progress.update > 0 or self.progress.records:
            return
        self.module.eval()
        found = self._judge(self.forward)  # a mean of the weights starts where the weights do
        record = {"epoch": 0, "update": 0, **{f"val_{name}": value for name, value in found.items()}}
        self.progress.best, self.progress.best_epoch = found[self.settings.metric], 0
        self.progress.best_update = 0
        self.progress.records.append(record)
        if self.world.is_main:
            self.folder.add_metrics(record)
            save_weights(self._best(), self.module)
        self.reporter.note(f"before fine-tuning: val {self.settings.metric} {found[self.settings.metric]:.4f}")
