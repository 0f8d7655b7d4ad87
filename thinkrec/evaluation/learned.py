"""Likeness to the teacher's texts as language models see it: BERTScore and BLEURT, from model directories.

Neither model is part of this project: `evaluate.bertscore` and `evaluate.bleurt` name directories of `transformers`
models with weights as safetensors. Without one the measure is NaN: not computed. Figures of different models cannot be
compared.

BERTScore (arXiv 1904.09675): every token of one text is matched with the token of the other whose hidden state has the
highest cosine with its own; precision and recall are the means. Not counted are special tokens and inverse document
frequencies. States are of the layer three quarters up, where the authors found the best one in most encoders.

BLEURT (arXiv 2004.04696): a regression model reads the teacher's text and ours as a pair and answers with a rating.

Shapes: R tokens of a reason, T of the teacher's text, D hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from thinkrec.errors import UserError
from thinkrec.processes import device

DEPTH = 3 / 4  # of the layers, rounded up


Pair = tuple[str, str]  # a reason, and the teacher's text


def bertscore(pairs: Sequence[Pair], folder: Path) -> list[float]:
    """BERTScore F1 of every pair by the encoder in `folder`.

    Raises:
        UserError: `folder` holds no encoder.
    """
    model, tokenizer = _open(folder, AutoModel, "evaluate.bertscore")
    layer = math.ceil(DEPTH * model.config.num_hidden_layers)

    def states(text: str) -> Tensor:
        """Hidden states (tokens, D) of unit length of a text's tokens, without special ones."""
        encoded = tokenizer(text, return_tensors="pt", truncation=True, return_special_tokens_mask=True)
        of_text = encoded.pop("special_tokens_mask")[0] == 0
        hidden = model(**encoded.to(model.device), output_hidden_states=True).hidden_states[layer][0]
        return functional.normalize(hidden[of_text.to(hidden.device)].float(), dim=-1)

    with torch.inference_mode():
        return [f1_of_matches(states(reason), states(teacher)) for reason, teacher in pairs]


def f1_of_matches(reason_RD: Tensor, teacher_TD: Tensor) -> float:
    """F1 of the best matches between two texts' states of unit length; 0 where one of them has none."""
    if not len(reason_RD) or not len(teacher_TD):
        return 0.0
    cosine_RT = reason_RD @ teacher_TD.T
    precision, recall = (float(cosine_RT.amax(dim).mean()) for dim in (1, 0))
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def bleurt(pairs: Sequence[Pair], folder: Path) -> list[float]:
    """The rating of every pair by the regression model in `folder`.

    Raises:
        UserError: `folder` holds no model that rates a pair with one number.
    """
    model, tokenizer = _open(folder, AutoModelForSequenceClassification, "evaluate.bleurt")
    if model.config.num_labels != 1:
        raise UserError(
            f"evaluate.bleurt: {folder} has {model.config.num_labels} outputs, not one; name a BLEURT model"
        )
    with torch.inference_mode():
        return [
            float(model(**tokenizer(teacher, reason, return_tensors="pt", truncation=True).to(model.device)).logits)
            for reason, teacher in pairs
        ]


MEASURES: dict[str, Callable[[Sequence[Pair], Path], list[float]]] = {"bertscore": bertscore, "bleurt": bleurt}


def score_likeness(
    reasons: Sequence[str], teachers: Sequence[str], folders: Mapping[str, Path | None]
) -> dict[str, float]:
    """The means of MEASURES by the models in `folders`, over the pairs that have a teacher's text.

    NaN without a model or without texts.

    Raises:
        UserError: a directory does not hold what its measure needs.
    """
    pairs = [pair for pair in zip(reasons, teachers, strict=True) if pair[1].strip()]
    means = {}
    for name, measure in MEASURES.items():
        folder = folders[name]
        means[name] = float(np.mean(measure(pairs, folder))) if folder is not None and pairs else float("nan")
    return means


def _open(folder: Path, kind: Any, name: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model and its tokenizer, from this disk and without code or pickles of its own."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, loading = kind.from_pretrained(str(folder), use_safetensors=True, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:120]
        raise UserError(
            f"{name}: {folder} is no model directory of config, tokenizer and model.safetensors ({cause})"
        ) from None
    if missing := sorted(key for key in loading["missing_keys"] if "pooler" not in key):  # encoders need no pooler
        raise UserError(f"{name}: {folder} has no weights {missing[0]}; name a model that was trained for this")
    return model.to(device()).eval(), tokenizer
