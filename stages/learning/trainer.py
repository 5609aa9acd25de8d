"""One training loop for everything that learns: epochs of batches, evaluation, checkpoints, exact resume.

    for every epoch:   for every update:   forward, backward (of `accumulate` batches), check, clip, step
                       evaluate, keep the best, write a line of metrics, checkpoint

It knows neither embeddings nor frames: a module, a source of batches, an objective, and a function that evaluates. What
an epoch looks at follows from the seed and the epoch, so a run that was interrupted after any update goes on with the
very numbers it would have had. Random numbers (dropout, augmentation) come from torch's own state, seeded with the
seed; of several processes each has a stream of its own, kept in the checkpoint.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from reelwright.models.contracts import Forward, VideoModel
from reelwright.models.ema import WeightMean
from reelwright.models.metric import metric_named
from reelwright.stages.learning.batches import Batch, Batches, Prepare
from reelwright.stages.learning.checkpoints import Checkpoint, load_last, load_weights, save_last, save_state
from reelwright.stages.learning.loggers import Logger, open_loggers
from reelwright.stages.learning.progress import Progress, Speed, TrainerSettings, line
from reelwright.stages.learning.stopping import StopRequests
from reelwright.stages.learning.streams import own_stream, seeded, take_stream
from reelwright.stages.learning.updates import PRECISIONS, Rates, Updater
from reelwright.stages.learning.world import World
from reelwright.stages.objectives.contract import Objective
from reelwright.stages.work import Reporter
from reelwright.storage.errors import Interrupted, StoreError
from reelwright.storage.files import remove, write_text
from reelwright.storage.heartbeat import check_held
from reelwright.storage.runs import RunFolder

__all__ = ["PRECISIONS", "Evaluate", "Progress", "Rates", "Trainer", "TrainerSettings"]

Evaluate = Callable[[Forward], dict[str, float]]  # the module under autocast -> metrics on val

CHECKPOINT_SECONDS = 2.0  # epochs shorter than that share a checkpoint: writing it would take longer than training


class Trainer:
    """Trains ``module``; every argument is made by the stage that uses it."""

    def __init__(
        self,
        module: VideoModel,
        *,
        optimizer: torch.optim.Optimizer,
        rates: Rates,
        objective: Objective,
        settings: TrainerSettings,
        folder: RunFolder,
        reporter: Reporter,
        world: World | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.module, self.settings, self.folder, self.reporter = module, settings, folder, reporter
        self.world = world or World()
        self.optimizer = optimizer
        self.updater = Updater(
            module,
            optimizer=optimizer,
            rates=rates,
            objective=objective,
            settings=settings,
            world=self.world,
            prepare=prepare,
        )
        self.device = self.updater.device
        decay = settings.ema_decay
        self.mean = None if decay is None else WeightMean(module, decay=decay, warmup=settings.ema_warmup)
        self.progress = Progress()
        self.speed = Speed()
        self.saved = -math.inf  # when the last checkpoint was written

    @property
    def forward(self) -> Forward:
        """The module's outputs under the settings' precision."""
        return self.updater.forward

    def fit(self, batches: Batches, evaluate: Evaluate | None = None) -> Progress:
        """Train to the end, from the last checkpoint if there is one; the module ends with the best weights.

        Without ``evaluate`` the last weights are the best. Raises Interrupted after a signal or the time limit (a
        checkpoint is written), StageError when loss or gradients are not finite, StoreError when a checkpoint cannot be
        written.
        """
        started = time.monotonic()
        with (
            seeded(self.settings.seed, self.device, self.world),
            StopRequests(limit_minutes=self.settings.max_minutes, since=started) as stop,
        ):
            self._resume()
            if evaluate is not None and self.settings.evaluate_start:
                self._evaluate_start(evaluate)
            done = self.progress.epoch * batches.num_items + self.progress.num_items
            self.reporter.total(self.settings.epochs * batches.num_items, "windows", done)
            with self._loggers() as loggers:
                while not self._is_finished():
                    self._train_epoch(batches, stop)
                    self._end_epoch(evaluate, loggers)
        self._tell_profile()
        self.world.wait()
        load_weights(self._best(), self.module)
        return self.progress

    def _train_epoch(self, batches: Batches, stop: StopRequests) -> None:
        self._set_training(True)
        progress, clock = self.progress, self.updater.clock
        self.speed = Speed()
        started, before = time.perf_counter(), progress.seconds
        source = batches.epoch(progress.epoch, first=progress.batch)
        clock.start_update()
        while group := self._next(source):
            outcome = self.updater.update(group, progress, is_stopping=stop.is_stopping)
            if self.mean is not None and outcome.is_stepped:
                self.mean.update(self.module)
            num_items = sum(batch.num_items for batch in group)
            progress.loss_sum += outcome.loss * outcome.weight
            progress.weight_sum += outcome.weight
            for name, value in outcome.parts.items():
                progress.part_sums[name] = progress.part_sums.get(name, 0.0) + value * outcome.weight
            progress.norm_sum += outcome.norm
            progress.num_items += num_items
            progress.batch += len(group)
            progress.update += 1
            progress.seconds = before + time.perf_counter() - started
            self.speed.num_items += num_items
            self.speed.num_updates += 1
            clock.stop_update()
            check_held(self.folder.path)
            self.reporter.advance(num_items)
            # several processes stop after the update that all of them knew of; one process knows at once
            if outcome.is_stopping or (self.world.size == 1 and stop.is_stopping):
                self._interrupt(stop)
            clock.start_update()
        self.speed.seconds = time.perf_counter() - started

    def _set_training(self, is_training: bool) -> None:
        self.module.train(is_training)
        self.updater.objective.train(is_training)

    def _next(self, source: Iterator[Batch]) -> list[Batch]:
        with self.updater.clock.part("data"):
            return list(itertools.islice(source, self.settings.accumulate))

    def _interrupt(self, stop: StopRequests) -> None:
        self._checkpoint()
        self._tell_profile()
        why = "the time limit is reached" if stop.is_late else "asked to stop"
        raise Interrupted(
            f"{why} after update {self.progress.update} (epoch {self.progress.epoch + 1}); "
            f"{self.folder.last} is written, run again to go on."
        )

    def _end_epoch(self, evaluate: Evaluate | None, loggers: list[Logger]) -> None:
        progress, settings = self.progress, self.settings
        progress.epoch += 1
        record = self._record()
        is_last = progress.epoch == settings.epochs
        if evaluate is not None and (progress.epoch % settings.evaluate_every == 0 or is_last):
            self._set_training(False)
            with self._averaged():
                found = evaluate(self.forward)
                record |= {f"val_{name}": value for name, value in found.items()}
                self._keep_best(found[settings.metric])
        elif evaluate is None:
            progress.best_epoch, progress.best_update = progress.epoch, progress.update
        progress.records.append(record)
        if self.world.is_main:
            self._tell(record, loggers)
        progress.start_epoch()
        if evaluate is None and self._is_finished():
            self._save(self._best())
        if settings.keep_every is not None and progress.epoch % settings.keep_every == 0:
            self._save(self.folder.kept(progress.epoch))
        if self._is_finished() or (progress.epoch % settings.checkpoint_every == 0 and self._is_due()):
            self._checkpoint()

    def _evaluate_start(self, evaluate: Evaluate) -> None:
        """Count the weights of a training that begins as a candidate for the best."""
        progress, metric = self.progress, self.settings.metric
        if progress.update > 0 or progress.records:
            return
        self._set_training(False)
        found = evaluate(self.forward)  # a mean of the weights starts where the weights do
        record = {"epoch": 0, "update": 0, **{f"val_{name}": value for name, value in found.items()}}
        progress.records.append(record)
        if self.world.is_main:
            self.folder.add_metrics(record)
        self._keep_best(found[metric])
        self.reporter.note(f"before fine-tuning: val {metric} {found[metric]:.4f}")

    def _record(self) -> dict[str, Any]:
        """The line of metrics of the epoch that just ended."""
        progress = self.progress
        num_updates = -(-progress.batch // self.settings.accumulate)
        return {
            "epoch": progress.epoch,
            "update": progress.update,
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "train_loss": progress.loss_sum / max(progress.weight_sum, 1e-12),
            **{f"train_loss_{name}": v / max(progress.weight_sum, 1e-12) for name, v in progress.part_sums.items()},
            "gradient_norm": progress.norm_sum / num_updates,
            "seconds": round(progress.seconds, 3),
            **self.speed.values(self.device),
        }

    def _tell(self, record: dict[str, Any], loggers: list[Logger]) -> None:
        try:
            self.folder.add_metrics(record)
            for logger in loggers:
                logger.log(record, self.progress.epoch)
        except OSError as error:
            raise StoreError(
                f"the metrics in {self.folder.path} cannot be written ({error}); the last checkpoint is intact. Make "
                "room, then run again: training goes on from there."
            ) from error
        self.reporter.note(line(record, epochs=self.settings.epochs, metric=self.settings.metric))

    def _keep_best(self, value: float) -> None:
        """Of the weights that were evaluated, which the module has now."""
        progress = self.progress
        if metric_named(self.settings.metric).is_better(value, than=progress.best):
            progress.best, progress.best_epoch, progress.num_stale = value, progress.epoch, 0
            progress.best_update = progress.update
            if self.world.is_main:
                save_state(self._best(), self.module.state_dict())
        else:
            progress.num_stale += 1

    def _best(self) -> Path:
        """The file of the best weights so far."""
        assert self.progress.best_update is not None
        return self.folder.best(self.progress.best_update)

    def _save(self, path: Path) -> None:
        """Write the weights that would be evaluated: the mean's where there is one."""
        if self.world.is_main:
            save_state(path, self.module.state_dict() if self.mean is None else self.mean.state)

    def _is_finished(self) -> bool:
        patience = self.settings.patience
        is_stale = patience is not None and self.progress.num_stale >= patience
        return self.progress.epoch >= self.settings.epochs or is_stale

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.mean is None else self.mean.in_place_of(self.module)

    def _is_due(self) -> bool:
        """Whether the last checkpoint is old enough; the first process decides for all."""
        is_due = time.monotonic() - self.saved >= CHECKPOINT_SECONDS
        found: bool = self.world.gather(is_due)[0]
        return found

    def _checkpoint(self) -> None:
        """Everything a resume needs; each process adds its random state, the first one writes."""
        streams = self.world.gather(own_stream(self.device))
        self.saved = time.monotonic()
        if not self.world.is_main:
            return
        state = {
            "key": self.settings.key,
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.updater.scaler.state_dict(),
            "mean_updates": None if self.mean is None else self.mean.num_updates,
            "random": streams,
        }
        weights = {"weights": self.module.state_dict()}
        if self.mean is not None:
            weights["mean"] = self.mean.state
        objective = self.updater.objective.state_dict()
        if objective:
            weights["objective"] = objective
        save_last(self.folder.last, Checkpoint(update=self.progress.update, weights=weights, state=state))
        self.folder.keep_best(self.progress.best_update)  # those of the checkpoint before, now that none names them

    def _resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        if self.world.is_main and not self.settings.resume:
            remove(self.folder.last)
        self.world.wait()
        found = load_last(self.folder.last)
        if found is None:
            self._keep_what_is_known()
            return
        state = found.state
        if state["key"] != self.settings.key:
            raise StoreError(
                f"{self.folder.last} is of run {state['key']}, not of {self.settings.key}. Remove it to train from the "
                "beginning."
            )
        found.fill(self.module, self.folder.last)
        if self.mean is not None:
            self.mean.load(found.weights["mean"], num_updates=state["mean_updates"])
        found.fill(self.updater.objective, self.folder.last, kind="objective")
        self.optimizer.load_state_dict(state["optimizer"])
        self.updater.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])
        self._check_best()
        self._keep_what_is_known()
        if not take_stream(state["random"], self.device, self.world, seed=self.settings.seed + self.progress.update):
            self.reporter.note(
                f"the checkpoint is of {len(state['random'])} processes, now there are {self.world.size}: random "
                "numbers (dropout, augmentation) are drawn anew"
            )
        self.reporter.note(f"goes on after update {self.progress.update} (epoch {self.progress.epoch + 1})")

    def _check_best(self) -> None:
        """Raise StoreError where the best weights that the checkpoint names are not there."""
        progress = self.progress
        if progress.best is None or (progress.best_update is not None and self._best().is_file()):
            return
        file = "any" if progress.best_update is None else self._best()
        raise StoreError(
            f"{self.folder.last} goes on from a best {self.settings.metric} of epoch {progress.best_epoch}, whose "
            f"weights are gone ({file}), or it is of an older release. Remove it to train from the beginning."
        )

    def _keep_what_is_known(self) -> None:
        """Of lines and best weights, what the checkpoint knows of: the rest was written after it."""
        if self.world.is_main:
            self.folder.keep_metrics(self.progress.records)
            self.folder.keep_best(self.progress.best_update)

    @contextlib.contextmanager
    def _loggers(self) -> Iterator[list[Logger]]:
        """The main process's loggers; none of the others'."""
        loggers: list[Logger] = []
        if self.world.is_main:
            settings = self.settings
            first = self.progress.epoch + 1
            loggers = open_loggers(self.folder, settings.log_to, first_epoch=first, about=settings.about)
        try:
            yield loggers
        finally:
            for logger in loggers:
                logger.close()

    def _tell_profile(self) -> None:
        if self.settings.profile and self.world.is_main and self.updater.clock.num_updates:
            table = self.updater.clock.table()
            write_text(self.folder.profile, table + "\n")
            self.reporter.note(f"where a step's time goes:\n{table}")
