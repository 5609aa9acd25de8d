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
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from reelwright.models.blocks.ema import ModelEma
from reelwright.models.contracts import Forward, Inputs, VideoModel
from reelwright.stages.base.devices import rounded_to_tf32
from reelwright.stages.base.work import Reporter
from reelwright.stages.fit.loop.batches import Batch, Batches, Prepare
from reelwright.stages.fit.loop.checkpoints import load_weights
from reelwright.stages.fit.loop.finite import room_for
from reelwright.stages.fit.loop.loggers import Logger, notify, open_loggers
from reelwright.stages.fit.loop.progress import Progress, Speed, TrainerSettings, line
from reelwright.stages.fit.loop.saving import Saver, own_stream, seeded, set_stream
from reelwright.stages.fit.loop.updates import PRECISIONS, Rates, Step, Updater
from reelwright.stages.fit.processes.stopping import StopRequests
from reelwright.stages.fit.processes.world import ALONE, GivenUp, World
from reelwright.stages.objectives.contract import Objective
from reelwright.storage.errors import Interrupted, StoreError
from reelwright.storage.files import write_text
from reelwright.storage.heartbeat import check_held
from reelwright.storage.results.runs import RunFolder

__all__ = ["PRECISIONS", "Evaluate", "Progress", "Rates", "Trainer", "TrainerSettings"]

Evaluate = Callable[[Forward], dict[str, float]]  # the module under autocast -> metrics on val


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
        world: World = ALONE,
        prepare: Prepare | None = None,
    ) -> None:
        self.module, self.settings, self.folder, self.reporter = module, settings, folder, reporter
        self.world, self.optimizer = world, optimizer
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
        self.mean = None if decay is None else ModelEma(module, decay=decay, warmup=settings.ema_warmup)
        self.saver = Saver(self.updater, self.mean, settings=settings, folder=folder)
        self.progress = Progress()
        self.speed = Speed()
        self._behind: Step | None = None  # the last update, of which it is not known yet what it was like
        self._stop = StopRequests()  # of `fit`

    @property
    def forward(self) -> Forward:
        """The module's outputs under the settings' precision."""
        return self.updater.forward

    def fit(self, batches: Batches, evaluate: Evaluate | None = None, *, unit: str = "windows") -> Progress:
        """Train to the end, from the last checkpoint if there is one; the module ends with the best weights.

        Without ``evaluate`` the last weights are the best. Raises Interrupted after a signal or the time limit (a
        checkpoint is written), StageError when loss or gradients are not finite or memory does not suffice, StoreError
        when a checkpoint cannot be written.
        """
        started = time.monotonic()
        objective, accumulate = self.updater.objective, self.settings.accumulate
        objective.num_steps = max(1, self.settings.epochs * -(-batches.num_batches // accumulate))
        with (
            rounded_to_tf32(self.device, is_wanted=self.settings.precision == "tf32"),
            seeded(self.settings.seed, self.device, self.world),
            StopRequests(limit_minutes=self.settings.max_minutes, since=started) as self._stop,
        ):
            self.progress = self.saver.resume(self.reporter)
            if evaluate is not None and self.settings.evaluate_start and not self.progress.records:
                self._evaluate_between(evaluate, epoch=0, when="before fine-tuning")
            done = self.progress.epoch * batches.num_items + self.progress.num_items
            self.reporter.total(self.settings.epochs * batches.num_items, unit, done)
            with self._loggers() as loggers:
                while not self._is_finished():
                    self._train_epoch(batches, evaluate)
                    self._end_epoch(evaluate, loggers)
        self._write_profile()
        self.world.wait()
        load_weights(self.saver.best(self.progress), self.module)
        return self.progress

    def _train_epoch(self, batches: Batches, evaluate: Evaluate | None) -> None:
        self._set_training(True)
        progress, clock, stop = self.progress, self.updater.clock, self._stop
        self.speed = Speed()
        started, before = time.perf_counter(), progress.seconds
        started += self._evaluate_within(evaluate, batches)  # what was given up
        source = batches.epoch(progress.epoch, first=progress.batch)
        clock.start_update()
        while group := self._next(source):
            with room_for(self.device, group):
                step = self.updater.update(group, progress, is_stopping=stop.is_stopping)
            if self.mean is not None and step.is_stepped:
                self.mean.update(self.module)
            is_stopping, self._behind = self._settled(), step
            if not self.updater.is_late:
                is_stopping = self._settled()
            num_items = sum(batch.num_items for batch in group)
            progress.num_items += num_items
            progress.batch += len(group)
            progress.update += 1
            progress.seconds = before + time.perf_counter() - started
            self.speed.num_items += num_items
            self.speed.num_updates += 1
            clock.stop_update()
            check_held(self.folder.path)
            self.reporter.advance(num_items)
            if self._is_due():
                is_stopping |= self._settled()
                started += self._evaluate_within(evaluate, batches)
            # several processes stop after the update that all of them knew of; one process knows at once
            if is_stopping or (self.world.size == 1 and stop.is_stopping):
                self._settled()
                self._interrupt()
            clock.start_update()
        if self._settled():
            self._interrupt()
        progress.seconds = before + time.perf_counter() - started
        self.speed.seconds = time.perf_counter() - started

    def _settled(self) -> bool:
        """Wait for the last update where that was not done yet, and add up what it was like; whether all are to stop.

        Raises StageError where it was not finite: nothing is kept, measured or stopped at before this.
        """
        step, self._behind = self._behind, None
        if step is None:
            return False
        found, progress = step.result(), self.progress
        progress.loss_sum += found.loss * found.weight
        progress.weight_sum += found.weight
        for name, value in found.parts.items():
            progress.part_sums[name] = progress.part_sums.get(name, 0.0) + value * found.weight
        progress.norm_sum += found.norm
        return found.is_stopping

    def _set_training(self, is_training: bool) -> None:
        self.module.train(is_training)
        self.updater.objective.train(is_training)

    def _next(self, source: Iterator[Batch]) -> list[Batch]:
        with self.updater.clock.part("data"):
            return list(itertools.islice(source, self.settings.accumulate))

    def _interrupt(self) -> NoReturn:
        self.saver.checkpoint(self.progress)
        self._write_profile()
        why = "the time limit is reached" if self._stop.is_late else "asked to stop"
        raise Interrupted(
            f"{why} after update {self.progress.update} (epoch {self.progress.epoch + 1}); "
            f"{self.folder.last} is written, run again to go on."
        )

    def _end_epoch(self, evaluate: Evaluate | None, loggers: list[Logger]) -> None:
        progress, settings = self.progress, self.settings
        epoch = progress.epoch + 1  # it counts once it is evaluated: given up, that is all that is left to do of it
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        record = progress.record(epoch, lr=lr, accumulate=settings.accumulate) | self.speed.values(self.device)
        if evaluate is None:
            progress.best_epoch, progress.best_update = epoch, progress.update
        elif epoch % settings.evaluate_every == 0 or epoch == settings.epochs or self._is_due():
            record |= self._evaluated(evaluate, epoch=epoch)
        progress.epoch = epoch
        progress.records.append(record)
        if self.world.is_main:
            self._write_record(record, loggers)
        progress.start_epoch()
        if evaluate is None and self._is_finished():
            self.saver.save(self.saver.best(progress))
        if settings.keep_every is not None and progress.epoch % settings.keep_every == 0:
            self.saver.save(self.folder.kept(progress.epoch))
        if self._is_finished() or (progress.epoch % settings.checkpoint_every == 0 and self.saver.is_due()):
            self.saver.checkpoint(progress)

    def _is_due(self) -> bool:
        """Whether the updates since the last evaluation call for one."""
        every = self.settings.evaluate_updates
        return every is not None and self.progress.update % every == 0

    def _evaluated(self, evaluate: Evaluate, *, epoch: float) -> dict[str, float]:
        """Metrics on val of the weights, or of their mean; they are kept where they are the best.

        Raises Interrupted where a signal comes meanwhile: evaluating is given up, and done when the run goes on.
        """
        self._set_training(False)
        stream, found = own_stream(self.device), None
        as_mean = contextlib.nullcontext() if self.mean is None else self.mean.in_place_of(self.module)
        with contextlib.suppress(GivenUp), as_mean, room_for(self.device):
            found = self.world.gather(evaluate(self._forward_until_asked()))[0]  # a last bit must not part processes
            self.saver.keep_best(self.progress, found[self.settings.metric], epoch=epoch)
        if found is None:
            set_stream(stream, self.device)
            self._interrupt()
        return {f"val_{name}": value for name, value in found.items()}

    def _forward_until_asked(self) -> Forward:
        """`forward`, which gives up once a signal asks to stop; not where each batch is an exchange with the others."""

        def forward(inputs: Inputs) -> dict[str, Tensor]:
            if self._stop.is_asked:
                self.world.give_up()
            return self.forward(inputs)

        return self.forward if self.world.size > 1 and self.updater.objective.gathers else forward

    def _evaluate_within(self, evaluate: Evaluate | None, batches: Batches) -> float:
        """Evaluate between two updates of an epoch, where that is due and was not done; returns the seconds it took."""
        progress, started = self.progress, time.perf_counter()
        is_within, last = 0 < progress.batch < batches.num_batches, progress.records[-1:]
        if evaluate is None or not is_within or not self._is_due() or (last and last[0]["update"] == progress.update):
            return 0.0
        epoch = round(progress.epoch + progress.num_items / batches.num_items, 4)
        self._evaluate_between(evaluate, epoch=epoch, when=f"after update {progress.update}")
        self._set_training(True)
        return time.perf_counter() - started

    def _evaluate_between(self, evaluate: Evaluate, *, epoch: float, when: str) -> None:
        """Evaluate apart from the ends of epochs, as at the start, with a line of metrics of its own."""
        metric, progress = self.settings.metric, self.progress
        record = {"epoch": epoch, "update": progress.update, **self._evaluated(evaluate, epoch=epoch)}
        progress.records.append(record)
        if self.world.is_main:
            self.folder.add_metrics(record)
        self.reporter.note(f"{when}: val {metric} {record[f'val_{metric}']:.4f}")

    def _write_record(self, record: dict[str, Any], loggers: list[Logger]) -> None:
        try:
            self.folder.add_metrics(record)
            epoch, note = self.progress.epoch, self.reporter.note
            notify(loggers, f"epoch {epoch}", lambda logger: logger.log(record, epoch), note=note)
        except OSError as error:
            raise StoreError(
                f"the metrics in {self.folder.path} cannot be written ({error}); the last checkpoint is intact. Make "
                "room, then run again: training goes on from there."
            ) from error
        self.reporter.note(line(record, epochs=self.settings.epochs, metric=self.settings.metric))

    def _is_finished(self) -> bool:
        """Whether nothing is left to train. Patience ends epochs only: one that is gone on with is trained to its end.

        Else an interrupted training would end where one that was not goes on, perhaps to better weights.
        """
        progress, patience = self.progress, self.settings.patience
        is_stale = patience is not None and progress.num_stale >= patience and progress.batch == 0
        return progress.epoch >= self.settings.epochs or is_stale

    @contextlib.contextmanager
    def _loggers(self) -> Iterator[list[Logger]]:
        """The main process's loggers; none of the others'."""
        loggers: list[Logger] = []
        if self.world.is_main:
            settings, first = self.settings, self.progress.epoch + 1
            how: dict[str, Any] = {"about": settings.about, "note": self.reporter.note}
            loggers = open_loggers(self.folder, settings.log_to, first_epoch=first, **how)
        try:
            yield loggers
        finally:
            final = self.progress.final(self.settings.metric) if self._is_finished() else {}
            notify(loggers, "the end", lambda logger: logger.close(final), note=self.reporter.note)

    def _write_profile(self) -> None:
        if self.settings.profile and self.world.is_main and self.updater.clock.num_updates:
            table = self.updater.clock.table()
            write_text(self.folder.profile, table + "\n")
            self.reporter.note(f"where a step's time goes:\n{table}")
