"""Settings of what is trained: the model by name, and what is minimised on windows with labels or views of videos."""

from __future__ import annotations

from typing import Any, ClassVar, Self, get_type_hints

from pydantic import TypeAdapter, ValidationError, model_validator

from reelwright.models.clip_options import CLIP_MODEL_OPTIONS
from reelwright.models.systems.carl_options import FRAME_MODEL_OPTIONS
from reelwright.models.temporal.options import EMBEDS_ROWS, TEMPORAL_OPTIONS, check_options, output_names
from reelwright.stages.base.fields import setting, training
from reelwright.stages.base.plugins import is_plugin
from reelwright.stages.datasets.sampling.settings import ViewSettings
from reelwright.stages.fit.config import LearningSettings
from reelwright.stages.named import NamedSettings
from reelwright.stages.objectives.config import ObjectiveSettings
from reelwright.storage.errors import ConfigError

MODEL_OPTIONS = {**TEMPORAL_OPTIONS, **FRAME_MODEL_OPTIONS, **CLIP_MODEL_OPTIONS}  # of all that come with the package


class ModelSettings(NamedSettings):
    """The model that learns: its name and its own options (checked before training starts)."""

    group: ClassVar[str] = "models"

    name: str = "transformer"
    """linear, mlp, transformer, storm_transformer (STORM-PSR's), gru, lstm, ms_tcn or attention_branch (ST-ABN's); of
    views carl, conv or vanilla; of frames (finetune) st_abn or cast (which train takes of tokens); or a plug-in's: an
    entry point of reelwright.models, package.module:Model, or file.py:Model. Another name, given with -S or -m, takes
    none of the options that the file gives the old one."""

    def is_ours(self) -> bool:
        """As of every such block."""
        return self.name in MODEL_OPTIONS

    @property
    def keeps_positions(self) -> bool:
        """Whether it reads tokens and maps as they are; else they are averaged over their positions."""
        return bool(getattr(MODEL_OPTIONS.get(self.name), "reads_grids", False))

    @property
    def joins_tokens(self) -> bool:
        """Whether it reads the tokens of several embeddings, one behind the other."""
        return bool(getattr(MODEL_OPTIONS.get(self.name), "joins_tokens", False))

    @property
    def has_branch(self) -> bool:
        """Whether one of ours has an attention branch, a classifier of its own."""
        return "aux.attention_logits" in output_names(self.name, self.options(), known=MODEL_OPTIONS)

    @model_validator(mode="after")
    def _model_is_known(self) -> Self:
        if not self.is_ours() and is_plugin(self.group, self.name):
            return self
        options, owner = self.options(), MODEL_OPTIONS.get(self.name)
        check_options(self.name, options, known=MODEL_OPTIONS)
        assert owner is not None
        types = get_type_hints(owner) if options else {}
        for name, value in options.items():
            try:
                TypeAdapter(types[name]).validate_python(value, strict=True)
            except ValidationError as error:
                raise ValueError(f"{name} is {value!r}: {error.errors()[0]['msg']}") from None
        owner(**options)
        return self

    def without_effect(self) -> tuple[str, ...]:
        """As of every block; of ours, options that differ from the usual."""
        if not self.is_ours():
            return ()
        owner, options = MODEL_OPTIONS[self.name], self.options()
        names = owner(**options).without_effect()
        return tuple(name for name in names if name in options and options[name] != getattr(owner, name))

    def option(self, name: str, default: Any = None) -> Any:
        """The value of an option, given or the model's own default; ``default`` for models that have no such option."""
        return self.options().get(name, getattr(MODEL_OPTIONS.get(self.name), name, default))


VIEW_METRICS = ("loss", "kendalls_tau")  # of val, without labels
_OF_SAMPLING = {
    "max_stretch": "time_augment",
    "overlap": "time_augment",
    "base": "time_augment",
    "positive_window": "anchor_positive",
    "stride": "clip",
}


class NetworkSettings(LearningSettings):
    """What train and finetune share of what is minimised, and on what."""

    usual_source: ClassVar[str | None] = None  # what a model on views is fed unless it is given; None: what it says

    objective: ObjectiveSettings | None = training(None, when=lambda config: config.objective is not None)
    """What is minimised in place of the task's own loss, which null means (`loss`); `views` need one."""
    views: ViewSettings | None = setting(None, when=lambda config: config.views is not None)
    """Learn from views of whole videos instead of windows; with ours but per_frame no label is needed."""

    @property
    def model_source(self) -> str | None:
        """What a model on views is fed (maps, rows, frames); None: it does not say."""
        model: ModelSettings | None = getattr(self, "model", None)
        return None if model is None else model.options().get("source", self.usual_source or model.option("source"))

    @property
    def learns_labels(self) -> bool:
        """Whether anything is learned from the labels of videos."""
        views, objective = self.views, self.objective
        return views is None or objective is None or views.one_label or self.classifies_rows or not objective.is_ours()

    @property
    def video_label_setting(self) -> str:
        """As of every stage."""
        return "views.one_label" if self.views is not None and self.views.one_label else ""

    @property
    def classifies_rows(self) -> bool:
        """Whether classes of rows are learned from views."""
        return self.views is not None and self.objective is not None and self.objective.name == "per_frame"

    @property
    def gives_scores(self) -> bool:
        """Whether the run answers with scores of classes, which predict needs."""
        return self.views is None or self.classifies_rows

    @property
    def compares_views(self) -> bool:
        """Whether whole views are compared, without labels (simclr, moco, byol)."""
        return self.objective is not None and self.objective.compares_views

    @property
    def view_sampling(self) -> str:
        """How views are drawn, where there are some."""
        assert self.views is not None
        usual = "clip" if self.compares_views else "time_augment"
        is_tcn = self.objective is not None and self.objective.name == "tcn"
        return self.views.sampling or ("anchor_positive" if is_tcn else usual)

    @model_validator(mode="after")
    def _views_and_windows_are_apart(self) -> Self:
        model: ModelSettings | None = getattr(self, "model", None)
        objective, is_ours = self.objective, self.objective is not None and self.objective.is_ours()
        is_of_views = model is not None and model.name in FRAME_MODEL_OPTIONS
        if self.views is None:
            if is_ours or is_of_views:
                what = f"model {model.name}" if model is not None and is_of_views else f"objective {objective.name}"  # type: ignore[union-attr]
                raise ValueError(
                    f"{what} learns from views of videos; give views: {{length: 80}} (with a model "
                    f"{', '.join(FRAME_MODEL_OPTIONS)} and an objective), and leave window and task out"
                )
            return self
        if objective is None:
            raise ValueError(
                "views need an objective: scl, tcc, tcn, per_frame, or a plug-in's; or simclr, moco or byol"
            )
        embeds = self.compares_views and model is not None and model.name in EMBEDS_ROWS
        if model is None or (model.is_ours() and not is_of_views and not embeds):
            name = "none is given" if model is None else f"{model.name} learns from windows"
            raise ValueError(
                f"views are of models {', '.join(FRAME_MODEL_OPTIONS)} or a plug-in's, but {name}; set model.name, or "
                f"leave views out ({', '.join(EMBEDS_ROWS)} learn from views with objective simclr, moco or byol)"
            )
        if embeds and model.options().get("pool") is not None:
            raise ValueError("model.pool: an embedding of each row is learned, nothing is pooled; leave pool out")
        if embeds and self.metric == "kendalls_tau" and model.option("positions", None) == "learned":
            raise ValueError(
                "metric kendalls_tau embeds whole videos, but model.positions: learned are of views.length rows; set "
                "positions: sinusoidal, or leave metric out"
            )
        self._check_views(self.views, objective)
        if is_of_views and model is not None:
            self._check_options(model, self.views)
        return self

    def _check_options(self, model: ModelSettings, views: ViewSettings) -> None:
        """Refuse what has no effect on a model of ours, as it is fed."""
        source = str(self.model_source)
        has_base = "spatial" in type(self).model_fields
        found = FRAME_MODEL_OPTIONS[model.name].unused(model.options(), source=source, has_base=has_base)
        if found is not None:
            raise ValueError(f"model.{found[0]} has no effect with {found[1]}; leave it out")
        if views.context_stride > 1 and model.option("contexts") == 1:
            raise ValueError(
                f"views.context_stride is {views.context_stride}, but rows of model {model.name} have no contexts "
                "(model.contexts: 1); leave it out"
            )

    @model_validator(mode="after")
    def _weight_is_of_a_branch(self) -> Self:
        model: ModelSettings | None = getattr(self, "model", None)
        if model is not None:
            self.check_attention_weight(model)
        return self

    def check_attention_weight(self, model: ModelSettings) -> None:
        """Raise ConfigError where the loss of a branch is weighed that `model` does not have (of plug-ins unknown)."""
        weight = self.loss.attention_weight
        if weight is not None and model.is_ours() and not model.has_branch:
            given = f"{model.name} with branch: false" if model.option("branch") is False else model.name
            raise ConfigError(
                f"loss.attention_weight is {weight:g}, but model {given} has no attention branch. Leave it out, or "
                "choose model attention_branch or st_abn"
            )

    def _check_views(self, views: ViewSettings, objective: ObjectiveSettings) -> None:
        sampling = self.view_sampling
        for name, owner in _OF_SAMPLING.items():
            if getattr(views, name) != type(views).model_fields[name].default and sampling != owner:
                raise ValueError(f"views.{name} is of sampling {owner}, not of {sampling}; leave it out")
        if objective.is_ours() and (objective.name == "tcn") != (sampling == "anchor_positive"):
            raise ValueError(
                f"views.sampling is {sampling}, but objective is {objective.name}: tcn reads anchors and positives in "
                "turn, the others do not. Leave sampling out"
            )
        if sampling == "anchor_positive" and views.length % 2:
            raise ValueError(f"views.length is {views.length}; of anchors and positives it must be even")
        if objective.name in {"tcc", "simclr"} and self.batch_size < 2:
            raise ValueError(
                f"objective {objective.name} compares the videos of a batch, but batch_size is 1; set it to at least 2"
            )
        if objective.name == "moco" and (queue := objective.of_views().queue) < self.batch_size:
            raise ValueError(f"objective.queue is {queue}, but a batch has {self.batch_size} keys; make it no smaller")
        if self.compares_views:
            self._check_compared()
        if self.mix is not None:
            raise ValueError("mix is of windows with labels, not of views; set mix: null")
        metrics = {None, *VIEW_METRICS}
        if not self.classifies_rows and self.metric not in metrics:
            raise ValueError(
                f"metric is {self.metric!r}, but with views and no labels there are {' and '.join(VIEW_METRICS)}"
            )

    def _check_compared(self) -> None:
        """Refuse what waits for a loss on val where whole views are compared."""
        if self.metric == "loss":
            raise ValueError(
                "metric is loss, which says nothing of weights here (queue and target network change with them); leave "
                "it out: the last weights count, or set kendalls_tau"
            )
        if self.metric is None and self.early_stop is not None:
            raise ValueError("early_stop waits for a metric, and none is measured; set metric: kendalls_tau")

    def view_facts(self) -> dict[str, Any]:
        """What config.yaml says of views, beside the model."""
        assert self.views is not None
        return {**self.views.model_dump(), "sampling": self.view_sampling}
