"""`params.yaml` as typed sections: the only place that knows which parameters exist and what they may be.

Every section is frozen and refuses keys it does not know, naming the nearest one that it does. Stages read the
file once with `load` and hand sections, never loose numbers, to the library.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from thinkrec.errors import UserError

PARAMS_FILE = Path("params.yaml")


def _whole(value: Any) -> Any:
    """Refuse `1.5`, `true` and `"3"` where a whole number is meant (YAML's `1e3` is a float, and is fine)."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("should be a whole number")
    return value


def _number(value: Any) -> Any:
    """Refuse `true` and `"0.5"` where a number is meant."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("should be a number")
    return value


def _count_or_auto(value: Any) -> Any:
    """Refuse what is neither a whole number from 0 on nor `auto`."""
    if value == "auto":
        return value
    try:
        count = _whole(value)
    except ValueError:
        raise ValueError("should be a whole number or auto") from None
    if count < 0:
        raise ValueError("should be greater than or equal to 0, or auto")
    return count


def _paths(value: Any) -> Any:
    """Refuse what is not a list of paths, a single path above all: its letters would be files."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(path, (str, Path)) for path in value):
        raise ValueError("should be a list of paths")
    return value


def _names(value: Any) -> Any:
    """A single name as a list of one."""
    return (value,) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=0)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_paths)]
Positive = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Share = Annotated[Number, Field(ge=0, le=1)]
AboveZero = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]

Slot = Literal["user", "item", "statistics"]
FeatureModel = Literal["mf", "lightgcn", "sasrec", "gsasrec"]
Metric = Literal["objective", "auc", "uauc", "log_loss"]


_OWN_FIELDS = {"model", "messages", "stream", "n"}  # of a request to a teacher
_CEILINGS = {"max_completion_tokens", "max_tokens"}


class Section(BaseModel):
    """A frozen group of parameters without room for unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Mapping(BaseModel):
    """A parameter of several parts, those left out null: not a section, one varies it as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RatingColumns(_Mapping):
    """The columns of rating files of one's own, by what they hold: a rating, or a label of 0 or 1."""

    user: str
    item: str
    rating: str | None = None
    label: str | None = None
    timestamp: str
    split: str | None = None

    @model_validator(mode="after")
    def _one_verdict(self) -> Self:
        if (self.rating is None) == (self.label is None):
            raise ValueError("should name either a rating or a label")
        named = [name for name in (self.user, self.item, self.rating, self.label, self.timestamp, self.split) if name]
        if len(set(named)) != len(named):
            raise ValueError(f"should name each column once (they are {', '.join(named)})")
        return self


class ItemFile(_Mapping):
    """A file of item metadata of one's own, and its columns; `description` may be several, joined in their order."""

    file: Path
    item: str
    title: str | None = None
    year: str | None = None
    categories: str | None = None
    description: Names = ()


class DatasetParams(Section):
    """Where the ratings come from (stage `ingest`)."""

    name: str
    raw: Path | None
    max_bad_share: Share
    threshold: Number | None
    windows: dict[str, Any] | str | None
    core: Count | None
    columns: RatingColumns | None
    items: ItemFile | None


class PromptParams(Section):
    """What a prompt shows of an interaction and its history (METHOD: data, keywords, features)."""

    layout: Literal["stream", "question"]
    history: Positive
    max_tokens: Positive
    keywords: Annotated[Count, Field(le=10)]
    slots: tuple[Slot, ...]
    soft_tokens: Count

    @field_validator("slots")
    @classmethod
    def _no_repeats(cls, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        if len(set(slots)) != len(slots):
            raise ValueError("should name each part once")
        return slots


class KeywordParams(Section):
    """Keyword summaries of item metadata (stage `keywords`)."""

    source: Literal["tfidf", "teacher"]
    max_per_item: Annotated[Positive, Field(le=10)]


class FeatureParams(Section):
    """Collaborative features and causal statistics (stage `features`)."""

    model: FeatureModel
    folds: Annotated[Positive, Field(ge=2)]
    epochs: Positive


class RecommenderParams(Section):
    """What fitting an ordinary recommender takes (stages `features`, `baselines`; METHOD: collaborative features)."""

    dim: Positive
    learning_rate: AboveZero


class MfParams(RecommenderParams):
    """Matrix factorisation."""

    weight_decay: NotNegative


class LightGcnParams(RecommenderParams):
    """LightGCN."""

    weight_decay: NotNegative
    layers: Positive


class SasRecParams(RecommenderParams):
    """SASRec."""

    history: Positive


class GsasRecParams(SasRecParams):
    """gSASRec: SASRec with sampled negatives and the generalised cross-entropy."""

    negatives: Positive
    calibration: Share


class BackboneParams(Section):
    """The causal language model (stage `backbone`); the sizes describe the `tiny` one."""

    name: str
    load_in_4bit: bool
    vocabulary: Annotated[Positive, Field(ge=300)]
    hidden: Positive
    layers: Positive
    heads: Positive
    epochs: Count
    learning_rate: AboveZero

    @model_validator(mode="after")
    def _tiny_is_whole(self) -> Self:
        if self.load_in_4bit and self.name == "tiny":
            raise ValueError("load_in_4bit is for models that are not trained whole, and `tiny` is; name another model")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) should be a multiple of 2 * heads ({2 * self.heads})")
        return self


class TeacherParams(Section):
    """Which teacher is asked: `offline`, or the base URL of any OpenAI-compatible endpoint."""

    endpoint: str
    model: str
    mode: Literal["live", "batch"]
    request: dict[str, Any]

    @field_validator("request", mode="before")
    @classmethod
    def _fields_of_a_request(cls, request: Any) -> Any:
        if not isinstance(request, dict) or not all(isinstance(name, str) for name in request):
            raise ValueError("should be a mapping of names to values, such as {temperature: 0.7}; {} for none")
        if taken := sorted(_OWN_FIELDS & set(request)):
            raise ValueError(f"should not set {taken[0]}, which is set elsewhere; leave it out")
        for name in sorted(_CEILINGS & set(request)):
            if type(request[name]) is not int or request[name] < 1:
                raise ValueError(f"should set {name} to a whole number from 1 on")
        try:
            json.dumps(request, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("should hold what JSON can say (text, numbers, lists, mappings)") from None
        return request

    @model_validator(mode="after")
    def _batches_are_remote(self) -> Self:
        if self.mode == "batch" and self.endpoint == "offline":
            raise ValueError("with mode=batch needs an endpoint that has a Batch API; the offline one answers at once")
        return self


class TraceParams(Section):
    """How many reasoning traces are asked for, about which rows, how hard, and what keeps one out (stage `traces`)."""

    sampling: Literal["balanced", "random", "hard"]
    train: Count
    held_out: Count
    max_turns: Positive
    min_words: Positive
    max_words: Positive

    @model_validator(mode="after")
    def _room_between(self) -> Self:
        if self.max_words < self.min_words:
            raise ValueError(f"max_words ({self.max_words}) should be at least min_words ({self.min_words})")
        return self


class TrainerParams(Section):
    """How whatever is trained by gradient through the language model is trained (stages `backbone` to `gate`)."""

    precision: Literal["auto", "fp32", "bf16"]
    metric: Metric


class SftParams(Section):
    """Supervised fine-tuning of the global model (stage `sft`; METHOD: losses)."""

    recipe: Literal["compact", "paper"]
    epochs: Positive
    learning_rate: AboveZero
    weight_decay: NotNegative
    batch_rows: Positive
    batch_tokens: Positive
    think_share: Annotated[Share, Field(lt=1)]
    reason_first: Share
    alpha: Share
    beta: Share
    eta: Share
    gamma: Share
    pairwise: NotNegative
    slot_dropout: Annotated[Share, Field(lt=1)]
    patience: Positive


class LoraParams(Section):
    """The shape of every adapter (METHOD: experts and fusion)."""

    r: Positive
    alpha: AboveZero
    dropout: Annotated[Share, Field(lt=1)]


class ExpertParams(Section):
    """User groups and one LoRA per group (stages `experts` and `added`); `n: 0` means the global model alone."""

    n: CountOrAuto
    grouping: Literal["kmeans", "agglomerative"]
    space: Literal["standardised", "raw"]
    min_users: Positive
    layers: Positive
    epochs: Positive
    learning_rate: AboveZero
    holdout: Annotated[Share, Field(gt=0, lt=1)]
    added: Paths


class GateParams(Section):
    """How the experts are weighted per user (stage `gate`; METHOD: experts and fusion)."""

    kind: Literal["centroid", "trained"]
    temperature: AboveZero
    epochs: Positive
    learning_rate: AboveZero


class EvaluateParams(Section):
    """What the evaluation generates and draws (stage `evaluate`)."""

    reasons: Count
    max_new_tokens: Positive
    candidates: Positive
    temperature: NotNegative
    top_p: Annotated[Share, Field(gt=0)]
    bertscore: Path | None
    bleurt: Path | None
    reason_first: Count

    @model_validator(mode="after")
    def _candidates_differ(self) -> Self:
        if self.candidates > 1 and not self.temperature:
            raise ValueError("with several candidates needs a temperature above 0, or all of them are the same")
        return self


class TeacherLimits(Section):
    """How fast a teacher is asked, what its tokens cost, and when a run stops asking."""

    concurrency: Positive
    timeout: AboveZero
    requests_per_minute: Positive | None
    tokens_per_minute: Positive | None
    prompt_price: NotNegative | None
    completion_price: NotNegative | None
    max_requests: Positive | None
    max_tokens_spent: Positive | None
    max_cost: AboveZero | None

    @model_validator(mode="after")
    def _max_cost_has_prices(self) -> Self:
        for name in ("prompt_price", "completion_price"):
            if self.max_cost is not None and getattr(self, name) is None:
                raise ValueError(f"with max_cost needs {name}, too; set it (per million tokens)")
        return self


class TeacherSettings(TeacherParams, TeacherLimits):
    """All that a teacher's client takes: the section `teacher`, and the limits of the section `run`."""


class RunParams(TeacherLimits):
    """How and how fast the stages run. No result depends on it, so DVC does not track it."""

    processes: Positive
    checkpoint_steps: Count
    gradient_checkpointing: bool


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Count
    run: RunParams
    dataset: DatasetParams
    prompt: PromptParams
    keywords: KeywordParams
    features: FeatureParams
    mf: MfParams
    lightgcn: LightGcnParams
    sasrec: SasRecParams
    gsasrec: GsasRecParams
    backbone: BackboneParams
    teacher: TeacherParams
    traces: TraceParams
    trainer: TrainerParams
    sft: SftParams
    lora: LoraParams
    experts: ExpertParams
    gate: GateParams
    evaluate: EvaluateParams

    @property
    def teacher_settings(self) -> TeacherSettings:
        """The section `teacher` with the limits that the section `run` sets."""
        limits = {name: getattr(self.run, name) for name in TeacherLimits.model_fields}
        return TeacherSettings(**limits, **self.teacher.model_dump())


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`.

    Raises:
        UserError: the file is missing, is not YAML, or a parameter is unknown, of the wrong type or impossible.
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))  # as DVC reads it: YAML 1.2
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's root, where params.yaml is") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the file") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: should hold sections such as `dataset:`; it holds {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {' '.join(_explain(error).split())}") from None


def _explain(error: ValidationError) -> str:
    """The first fault of a validation, in one line."""
    # An unknown name says more than the absence of what it was meant for.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    where = [str(part) for part in fault["loc"]]
    name = ".".join(where) or "params"
    match fault["type"]:
        case "extra_forbidden":
            nearest = ".".join([*where[:-1], _nearest(where[-1], _fields_at(where[:-1]))])
            return f"unknown parameter {name}; did you mean {nearest}?"
        case "missing":
            return f"parameter {name} is missing; add it"
        case "model_type":
            return f"parameter {name} should be a section with its own keys (it is {fault['input']!r})"
        case "path_type":
            return f"parameter {name} should be a path or null (it is {fault['input']!r})"
        case _:
            said = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
            given = "" if isinstance(fault["input"], dict) else f" (it is {fault['input']!r})"
            return f"parameter {name} {said}{given}"


def _nearest(key: str, names: list[str]) -> str:
    """The name most like `key`; one letter off (`m` for `n`) is nearest of all, though difflib sees no likeness."""
    for name in names:
        if len(name) == len(key) and sum(a != b for a, b in zip(name, key, strict=True)) == 1:
            return name
    return difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]


def _fields_at(path: list[str]) -> list[str]:
    model: type[BaseModel] = Params
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        models = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        models = [kind for kind in models if issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
