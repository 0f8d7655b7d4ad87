"""The causal language model: the tiny one, built and pretrained here, or any `transformers` model.

`out/backbone` is either a whole model directory (`tiny`) or a `reference.json` that pins a local directory by the
hashes of its files or a hub model by its revision (from `models.lock.json`). `open_backbone` reads both, and nothing
after it knows the difference. Safetensors only; no remote code.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from thinkrec.artifacts import missing_artifact, read_json, sha256, write_json
from thinkrec.errors import UserError
from thinkrec.lm.processes import device
from thinkrec.lm.trainer import PLAIN, Plan, TrainSettings, train
from thinkrec.params import BackboneParams, TrainerParams
from thinkrec.text.vocabulary import VERDICTS, find_vocabulary

TINY = "tiny"
LOCK = Path("models.lock.json")
REFERENCE = "reference.json"
BEGIN, END, PAD = "<s>", "</s>", "<pad>"
PACKED = 256  # tokens of a pretraining sequence
PRETRAINING_BATCH = 8  # sequences
HELD_OUT = 64  # sequences that pretraining's loss is measured on
LONGEST = 8192  # positions


def build_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocabulary` tokens, learned from `texts`; both verdicts are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Verdicts are rare in metadata: repeated often enough, their merges come first.
    verdicts = [f" {word}" for word in VERDICTS] * (10 * len(texts) + 10)
    tokenizer.train_from_iterator([*(f" {text}" for text in texts), *verdicts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def build_tiny(
    texts: Sequence[str], params: BackboneParams, trainer: TrainerParams = PLAIN, *, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Build a tokenizer and a small Llama and pretrain it on `texts` (training text only); returns metrics too."""
    tokenizer = build_tokenizer(texts, params.vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=params.hidden,
            intermediate_size=2 * params.hidden,
            num_hidden_layers=params.layers,
            num_attention_heads=params.heads,
            num_key_value_heads=params.heads,
            max_position_embeddings=LONGEST,
            # What is predicted in the same places gets like output vectors: tied, Yes and No would look alike in the
            # history and before a reason, where they say opposite things.
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    lines = tokenizer([f" {text}" for text in texts], add_special_tokens=False)["input_ids"]
    # A document that is too long keeps its end: a reason stands there.
    documents = [[tokenizer.bos_token_id, *line[2 - PACKED :], tokenizer.eos_token_id] for line in lines]
    metrics: dict[str, Any] = {
        "vocabulary": len(tokenizer),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "tokens": sum(map(len, documents)),
    }
    packed = _pack(documents, pad=tokenizer.pad_token_id, seed=seed)
    if params.epochs and len(packed) > 1:
        # Verdicts are train's labels: predicted after the text of their items they are learned by heart, and what is
        # fine-tuned on this model finds its labels explained already.
        given = [tokenizer.pad_token_id, *find_vocabulary(tokenizer).verdicts]
        metrics |= _pretrain(NextToken(model, given), packed, params, trainer, seed=seed)
    return model, tokenizer, metrics


def _pack(documents: Sequence[Sequence[int]], *, pad: int, seed: int) -> Tensor:
    """Whole documents, in seeded random order, side by side in sequences (k, PACKED) filled up with `pad`."""
    rows: list[list[int]] = [[]]
    for index in torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist():
        if len(rows[-1]) + len(documents[index]) > PACKED:
            rows.append([])
        rows[-1].extend(documents[index])
    return torch.tensor([row + [pad] * (PACKED - len(row)) for row in rows])


class NextToken(nn.Module):
    """The plain language-modelling loss of a batch (B, T) of token ids; tokens `given` (G,) are not to be predicted."""

    given: Tensor

    def __init__(self, model: PreTrainedModel, given: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("given", torch.tensor(given))

    def forward(self, input_ids: Tensor) -> Tensor:
        labels = input_ids.masked_fill(torch.isin(input_ids, self.given), -100)
        return self.model(input_ids=input_ids, labels=labels).loss


def _pretrain(
    objective: NextToken, packed: Tensor, params: BackboneParams, trainer: TrainerParams, *, seed: int
) -> dict[str, Any]:
    """Pretrain on sequences (k, PACKED); the first few are held out to report a loss."""
    held_out = min(HELD_OUT, max(1, len(packed) // 10))

    def epoch(number: int) -> list[Tensor]:
        rows = packed[held_out:]
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed + number))
        return list(rows[order].split(PRETRAINING_BATCH))

    def validate() -> dict[str, float]:
        with torch.no_grad():
            loss = float(objective(packed[:held_out].to(objective.model.device)))
        return {"objective": -loss, "held_out_loss": loss}

    settings = TrainSettings(
        name="backbone",
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        weight_decay=0.01,
        seed=seed,
        trainer=trainer,
    )
    plan = Plan(steps=epoch, collate=lambda rows: {"input_ids": rows}, inputs=[packed, objective.given])
    result = train(objective, plan, validate, settings)
    return {"held_out_loss": result.best["held_out_loss"], "epoch": result.best["epoch"]}


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write a model directory that any `transformers` user can load, without traces of where it was made."""
    logging.disable_progress_bar()
    model.config._name_or_path = ""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    _strip(path / "tokenizer_config.json", {"name_or_path", "local_files_only", "is_local"})


def _strip(path: Path, keys: set[str]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {key: value for key, value in values.items() if key not in keys})


def pin(name: str, *, load_in_4bit: bool = False) -> dict[str, Any]:
    """What pins the model `name`: a local directory by its files' hashes, a hub id by its locked revision.

    With `load_in_4bit` its linear layers are quantised to NF4 wherever it is loaded.

    Raises:
        UserError: the directory lacks what a model needs, or the hub id has no revision in `models.lock.json`.
    """
    folder, precision = Path(name), {"load_in_4bit": True} if load_in_4bit else {}
    if folder.is_dir():
        return {"name": name, "files": _hashes(folder), **precision}
    lock = read_json(LOCK) if LOCK.exists() else {}
    if name not in lock:
        raise UserError(
            f"backbone.name={name}: neither `{TINY}`, nor a model directory, nor a hub id pinned in {LOCK}; "
            f"pin its revision with: thinkrec pin {name}"
        )
    return {"name": name, "revision": lock[name], **precision}


def _hashes(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model directory; put the model back, or name another in backbone.name")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".model", ".txt"})
    for present, what in (
        ("config.json" in names, "config.json"),
        (any(name.endswith(".safetensors") for name in names), "*.safetensors weights"),
    ):
        if not present:
            raise UserError(f"{folder}: not a usable model directory, it has no {what}; save the model there first")
    if not any(name in {"tokenizer.json", "tokenizer.model", "vocab.json"} for name in names):
        raise UserError(f"{folder}: model directory without tokenizer; save one there with tokenizer.save_pretrained")
    return {name: sha256(folder / name) for name in names}


def write_reference(reference: dict[str, Any], path: Path) -> None:
    """Write what `pin` returned as the backbone artefact."""
    write_json(path / REFERENCE, reference)


def open_backbone(path: Path, root: Path = Path()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model and tokenizer of a backbone artefact or of any model directory, in the checkpoint's dtype.

    `path`, and the path of a local model that it refers to, are below the folder `root`.

    Raises:
        UserError: there is no model, it has no tokenizer, or it is not what was pinned.
    """
    path = root / path
    source, revision = str(path), None
    quantised: dict[str, Any] = {}
    if (path / REFERENCE).exists():
        reference = read_json(path / REFERENCE)
        source, revision = reference["name"], reference.get("revision")
        if "files" in reference:
            source = str(root / source)
            if reference["files"] != _hashes(Path(source)):
                raise UserError(f"{source}: the model has changed since it was pinned; rerun: dvc repro -f backbone")
        if reference.get("load_in_4bit"):
            quantised = _in_4bit()
    elif not path.is_dir():
        raise missing_artifact(path)
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **quantised,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: cannot be loaded as a causal language model ({_first_line(error)})") from None
    if loaded["missing_keys"]:  # or transformers would make them up
        lacking = min(loaded["missing_keys"])
        raise UserError(f"{source}: its weights lack {lacking}, which its config.json asks for; save the model again")
    find_vocabulary(tokenizer)
    return model, tokenizer


def check_positions(model: PreTrainedModel, max_tokens: int) -> None:
    """See that prompts of `max_tokens` fit into the positions that the model was made for.

    Raises:
        UserError: they do not.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and max_tokens > positions:
        raise UserError(
            f"prompt.max_tokens={max_tokens}: the backbone has {positions} positions; set it to at most that"
        )


def _in_4bit() -> dict[str, Any]:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("backbone.load_in_4bit: needs bitsandbytes; install it with: pip install -e '.[quantized]'")
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": nf4, "dtype": torch.bfloat16, "device_map": {"": device()}}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
