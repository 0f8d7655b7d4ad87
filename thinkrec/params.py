"""`params.yaml` as typed sections: the only place that knows which parameters exist and what they may be.

A section cannot be changed. It refuses keys it does not know and names the nearest one that it does. Stages read the
file once with `load` and hand sections, never loose numbers, to the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from thinkrec.errors import UserError
from thinkrec.sections import (
    AboveZero,
    BelowOne,
    Count,
    CountOrAuto,
    Encoding,
    HomeName,
    HomePath,
    Names,
    NotNegative,
    Number,
    Paths,
    Positive,
    Section,
    Share,
    explain,
)  # fmt: skip

PARAMS_FILE = Path("params.yaml")
SET_ELSEWHERE = {"model", "messages", "stream", "n"}  # fields of a request that the teacher's client sets itself
CEILINGS = {"max_completion_tokens", "max_tokens"}  # fields of a request that limit the length of its answer

Learned = Literal["answer", "reasoning"]
Slot = Literal["user", "item", "statistics"]
FeatureModel = Literal["mf", "lightgcn", "sasrec", "gsasrec", "hybrid_mf", "hybrid_sasrec"]
Metric = Literal["objective", "auc", "uauc", "log_loss"]


class RatingColumns(Section):
    """The columns of rating files of one's own, by what they hold. They have either a rating or a label."""

    user: str  # who rated
    item: str  # what was rated
    rating: str | None = None  # a number, compared with the threshold
    label: str | None = None  # 0 or 1
    timestamp: str  # when
    split: str | None = None  # train, valid or test, for windows: column
    encoding: Encoding = "utf-8"  # of the files, such as cp1252

    def _check(self) -> None:
        if (self.rating is None) == (self.label is None):
            raise ValueError("should name either a rating or a label")
        named = [name for name in (self.user, self.item, self.rating, self.label, self.timestamp, self.split) if name]
        if len(set(named)) != len(named):
            raise ValueError(f"should name each column once (they are {', '.join(named)})")


class ItemFile(Section):
    """A file of item metadata of one's own, and its columns by what they hold."""

    file: HomePath  # the table
    item: str  # the item's id, as in the ratings
    title: str | None = None  # the item's name
    year: str | None = None  # when it appeared
    categories: str | None = None  # genres and the like
    description: Names = ()  # text for keywords: one column, or several joined in their order
    encoding: Encoding = "utf-8"  # of the file, such as cp1252


class DatasetParams(Section):
    """Where the ratings come from (stage `ingest`)."""

    name: str  # a dataset that is known by name, or `own`
    raw: HomePath | None  # the raw files; null: downloaded
    max_bad_share: Share  # share of malformed rows, of ratings or metadata, above which the stage stops
    threshold: Number | None  # a rating above it is a like; null: the dataset's own
    windows: dict[str, Any] | str | None  # how time is split; null: the dataset's own
    core: Count | None  # fewest interactions of a user or item that stays; null: the dataset's own
    columns: RatingColumns | None  # of `own` ratings
    items: ItemFile | None  # of `own` item metadata


class PromptParams(Section):
    """What a prompt shows of an interaction and its history (METHOD: data, keywords, features)."""

    layout: Literal["stream", "question"]  # a verdict per interaction of a sequence, or the paper's prompt
    history: Positive  # earlier interactions that a target surely sees, where there are so many
    max_tokens: Positive  # of a prompt; the oldest of the history goes first
    keywords: Annotated[Count, Field(le=10)]  # shown per item
    slots: tuple[Slot, ...]  # features shown beside an item
    soft_tokens: Count  # learned vectors at the beginning of every prompt

    @field_validator("slots")
    @classmethod
    def _refuse_repeats(cls, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
        if len(set(slots)) != len(slots):
            raise ValueError("should name each part once")
        return slots


class KeywordParams(Section):
    """Keyword summaries of item metadata (stage `keywords`)."""

    source: Literal["tfidf", "teacher"]  # who writes them


class FeatureParams(Section):
    """Collaborative features and causal statistics (stage `features`)."""

    model: FeatureModel  # whose vectors fill the slots and group the users
    epochs: Positive  # of every recommender at most; the best on valid stays


class RecommenderParams(Section):
    """What fitting an ordinary recommender takes (stages `features`, `baselines`; METHOD: collaborative features)."""

    dim: Positive  # width of a vector
    learning_rate: AboveZero  # of Adam


class MfParams(RecommenderParams):
    """Matrix factorisation."""

    weight_decay: NotNegative  # pull of the weights towards 0


class LightGcnParams(RecommenderParams):
    """LightGCN."""

    weight_decay: NotNegative  # pull of the weights towards 0


class SasRecParams(RecommenderParams):
    """SASRec."""

    history: Positive  # earlier interactions that a target surely sees, where there are so many


class GsasRecParams(SasRecParams):
    """gSASRec: SASRec with sampled negatives and the generalised cross-entropy."""


class BackboneParams(Section):
    """The causal language model (stage `backbone`); the sizes describe the `tiny` one."""

    name: HomeName  # `tiny`, a model directory, a GGUF file or a pinned hub id
    load_in_4bit: bool  # weights in NF4 (bitsandbytes)
    vocabulary: Annotated[Positive, Field(ge=300)]  # tokens
    hidden: Positive  # width of a token's vector
    layers: Positive  # transformer blocks
    heads: Positive  # attention heads of a block

    def _check(self) -> None:
        if self.load_in_4bit and self.name == "tiny":
            raise ValueError("load_in_4bit is for models that are not trained whole, and `tiny` is; name another model")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden ({self.hidden}) should be a multiple of 2 * heads ({2 * self.heads})")


class TeacherParams(Section):
    """Which teacher is asked."""

    endpoint: str  # `offline`, or the base URL of any OpenAI-compatible server
    model: str  # the model's name there
    mode: Literal["live", "batch"]  # answered at once, or through the Batch API
    request: dict[str, Any]  # further fields of every request

    @field_validator("request", mode="before")
    @classmethod
    def _refuse_what_no_request_has(cls, request: Any) -> Any:
        if not isinstance(request, dict) or not all(isinstance(name, str) for name in request):
            raise ValueError("should be a mapping of names to values, such as {temperature: 0.7}; {} for none")
        if taken := sorted(SET_ELSEWHERE & set(request)):
            raise ValueError(f"should not set {taken[0]}, which is set elsewhere; leave it out")
        for name in sorted(CEILINGS & set(request)):
            if type(request[name]) is not int or request[name] < 1:
                raise ValueError(f"should set {name} to a whole number from 1 on")
        try:
            json.dumps(request, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("should hold what JSON can say (text, numbers, lists, mappings)") from None
        return request

    def _check(self) -> None:
        if self.mode == "batch" and self.endpoint == "offline":
            raise ValueError("with mode=batch needs an endpoint that has a Batch API; the offline one answers at once")


class TraceParams(Section):
    """How many reasoning traces are asked for (stage `traces`)."""

    train: Count  # train rows asked about
    held_out: Count  # test rows asked about, as references for the evaluation
    max_turns: Positive  # answers asked for at most, the first included
    learn: Learned  # what of a kept answer becomes the trace: its lines, or a reasoning teacher's scratch work


class TrainerParams(Section):
    """How everything that goes through the language model is trained (stages `backbone` to `gate`)."""

    precision: Literal["auto", "fp32", "bf16"]  # of the passes; auto: bf16 where that pays
    metric: Metric  # of valid; it names the best epoch


class SftParams(Section):
    """Supervised fine-tuning of the global model (stage `sft`; METHOD: losses)."""

    recipe: Literal["compact", "paper"]  # what is trained before the projector: the whole backbone, or a LoRA
    epochs: Positive  # of each phase at most
    learning_rate: AboveZero  # at its highest
    weight_decay: NotNegative  # pull of the weights towards 0
    batch_rows: Positive  # interactions that a step learns from
    batch_tokens: Positive  # of a pass at most, padding included
    think_share: BelowOne  # share of samples that write a trace
    reason_first: Share  # share of those whose reason comes before the verdict
    alpha: Share  # weight of the verdict's loss in a thinking sample
    beta: Share  # weight of the trace's loss in a thinking sample
    eta: Share  # weight of the verdict's loss in a recommending sample
    gamma: Share  # weight of the trace's loss in a recommending sample
    pairwise: NotNegative  # weight of the pairwise term within a user's window
    slot_dropout: BelowOne  # chance of dropping each part of a slot
    match_size: Count  # of an item's vector in the match of texts (compact, prompts without features); 0: none
    match_dropout: BelowOne  # on those vectors
    patience: Positive  # epochs without a better metric before training stops


class RefineParams(Section):
    """Refinement of reasons by their truth (a phase of the stage `sft`; `reasons.refinement`)."""

    steps: Count  # 0: none
    rows: Positive  # that a step asks about
    answers: Annotated[Positive, Field(ge=2)]  # to each
    learning_rate: AboveZero  # at its highest


class LoraParams(Section):
    """The shape of every adapter (METHOD: experts and fusion)."""

    r: Positive  # rank
    alpha: AboveZero  # the adapter's output is scaled by alpha / r
    dropout: BelowOne  # on the adapter's input


class ExpertParams(Section):
    """User groups and one LoRA per group (stage `experts`)."""

    n: CountOrAuto  # groups; auto: by their silhouette, 0: the global model alone
    grouping: Literal["kmeans", "agglomerative"]  # how users are clustered
    space: Literal["standardised", "raw"]  # the user vectors in which they are clustered and routed
    min_users: Positive  # smaller groups join their nearest
    layers: Positive  # last layers that experts adapt
    epochs: Positive  # of each expert at most
    learning_rate: AboveZero  # at its highest
    added: Paths  # files of user ids; each makes one more group and expert


class GateParams(Section):
    """How the experts are weighted per user (stage `gate`; METHOD: experts and fusion)."""

    kind: Literal["centroid", "trained"]  # by likeness to the groups' centres, or learned
    temperature: AboveZero  # of the softmax over likenesses
    epochs: Positive  # of a trained gate at most
    learning_rate: AboveZero  # at its highest


class EvaluateParams(Section):
    """What the evaluation writes and measures (stage `evaluate`)."""

    reasons: Count  # test rows that get a reason
    max_new_tokens: Positive  # of a reason
    candidates: Positive  # sampled for each row; the truest stays
    temperature: NotNegative  # of sampling; 0: the likeliest token
    top_p: Annotated[Share, Field(gt=0)]  # sampled from the likeliest tokens of this joint probability
    bertscore: HomePath | None  # directory of an encoder; null: not measured
    bleurt: HomePath | None  # directory of a BLEURT model; null: not measured
    reason_first: Count  # valid rows on which thinking before the verdict is measured

    def _check(self) -> None:
        if self.candidates > 1 and not self.temperature:
            raise ValueError("with several candidates needs a temperature above 0, or all of them are the same")


class RunParams(Section):
    """How and how fast the stages run. DVC does not track it: no result depends on it, but for dropout's draws.

    What limits the teacher is null where there is no limit.
    """

    processes: Positive  # that share a stage's training and scoring; with several, dropout draws other numbers
    checkpoint_steps: Count  # steps between checkpoints within an epoch; 0: none
    gradient_checkpointing: bool | Literal["auto"]  # compute activations twice; auto: where they would take gigabytes
    report_to: Names  # trackers that training reports each epoch to
    concurrency: Positive  # requests to the teacher at a time
    timeout: AboveZero  # seconds per request
    requests_per_minute: Positive | None  # as the provider allows
    tokens_per_minute: Positive | None  # likewise
    prompt_price: NotNegative | None  # of a million tokens
    completion_price: NotNegative | None  # likewise
    max_requests: Positive | None  # sent in one run, retries included
    max_tokens_spent: Positive | None  # in one run, prompts and answers
    max_cost: AboveZero | None  # of one run, by the prices

    def _check(self) -> None:
        for name in ("prompt_price", "completion_price"):
            if self.max_cost is not None and getattr(self, name) is None:
                raise ValueError(f"with max_cost needs {name}, too; set it (per million tokens)")


class TeacherSettings(TeacherParams, RunParams):
    """All that a teacher's client takes: the sections `teacher` and `run`."""

    def _check(self) -> None:
        TeacherParams._check(self)
        RunParams._check(self)


class Params(Section):
    """The whole of `params.yaml`; each section's class says what it is for."""

    seed: Annotated[Count, Field(lt=2**32)]  # of all that is drawn
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
    refine: RefineParams
    lora: LoraParams
    experts: ExpertParams
    gate: GateParams
    evaluate: EvaluateParams

    def recommender(self, model: FeatureModel) -> RecommenderParams:
        """The section of an ordinary recommender; a content-aware one has that of the model that it extends."""
        section: RecommenderParams = getattr(self, model.removeprefix("hybrid_"))
        return section

    @property
    def teacher_settings(self) -> TeacherSettings:
        """The sections `teacher` and `run` in one."""
        return TeacherSettings(**self.teacher.model_dump(), **self.run.model_dump())


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
    except OSError as error:
        raise UserError(f"{path}: cannot read it ({error.strerror}); run from the project's root") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the file") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: should hold sections such as `dataset:`; it holds {type(raw).__name__}")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {' '.join(explain(error).split())}") from None
