"""A finished project's model as folders that others can load: adapters for a server, or one expert merged.

    DIR/README.md         the model card
    DIR/project/          all that `Recommender.from_export` answers from; none where an expert is merged
    DIR/manifest.json     what there is, and how to prompt it
    DIR/model/            the global model, or with an expert merged into it: a `transformers` directory
    DIR/expert_1/ ...     PEFT adapters on it; none where one is merged
    DIR/*.safetensors     what fills the slots and the soft prompt

A server that loads these reads text under one adapter. It does not fill slots (`lm.model.RecommenderLM.embed` makes the
prompt embeddings it would need), mix experts per user, or keep rows of the same second blind to each other.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peft import PeftModel
from ruamel.yaml import YAML

from thinkrec import artifacts
from thinkrec.card import model_card
from thinkrec.errors import UserError
from thinkrec.experts.training import load_experts
from thinkrec.lm.adapters import read_lora
from thinkrec.lm.backbone import save_model
from thinkrec.lm.loaded import LoadedModel, open_global
from thinkrec.lm.model import MATCH_FILE
from thinkrec.params import PARAMS_FILE, Params
from thinkrec.provenance import PROVENANCE
from thinkrec.text.chat import frame_of
from thinkrec.text.layout import ITEM, USER, WHOLE
from thinkrec.text.vocabulary import VERDICTS, find_vocabulary

MANIFEST = "manifest.json"
MODEL = "model"
CARD_FILE = "README.md"
PROJECT = "project"
ANSWERED_FROM = (  # what a finished project is asked with
    *(artifacts.INTERACTIONS, artifacts.ITEMS, artifacts.USERS, artifacts.INTERACTIONS.with_name(PROVENANCE)),
    *(artifacts.KEYWORDS, artifacts.FEATURES, artifacts.FEATURE_MODEL),
    *(artifacts.BACKBONE, artifacts.SFT, artifacts.EXPERTS, artifacts.GATE),
)
SLOT_KINDS = {WHOLE: "both", USER: "user", ITEM: "item"}
SCORES = {"difference": "logit of Yes minus logit of No", "yes": "logit of Yes"}


def export(folder: Path, params: Params, *, expert: int | None = None) -> dict[str, Any]:
    """Write the project in the working directory to the new `folder`; returns the manifest.

    Without `expert`: the model that adapters stand on, and every adapter. With it: one model that the adapter of expert
    number `expert` (from 1; 0: the global one) is merged into.

    Raises:
        UserError: the folder has something in it, there is no such expert, it would be merged into 4 bits, or an
            artefact is missing or does not belong to the others.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a new folder, nothing is overwritten")
    experts = load_experts(params)
    count = len(experts.folders)
    if expert is not None and not 0 <= expert <= count:
        raise UserError(f"--expert {expert}: this project has experts 1 to {count}, and 0, the global model")
    loaded = open_global(params)
    model, tokenizer = loaded.model.backbone, loaded.tokenizer
    if expert is not None and getattr(model, "is_quantized", False):
        raise UserError(
            f"--expert {expert}: weights of 4 bits, or few (the backbone is quantised), would round a merge by more "
            "than the adapter changes; leave --expert out, and load the adapters beside the model"
        )
    every = {number: path for number, path in enumerate([loaded.adapter, *experts.folders]) if path is not None}
    merged = None if expert is None else every.get(expert)  # nothing to merge: the global model is no adapter
    adapters = every if expert is None else {}
    ranks = {number: max(len(a) for a, _, _ in read_lora(path).values()) for number, path in adapters.items()}
    if merged is not None:
        read_lora(merged)  # or peft would ask the hub for a missing file
        model = PeftModel.from_pretrained(model, str(merged)).merge_and_unload()
    inputs = sorted(artifacts.SFT.glob("*.safetensors"))
    words = find_vocabulary(tokenizer)
    if params.prompt.layout == "question":  # verdicts stand after other text there
        words = find_vocabulary(tokenizer, after=frame_of(tokenizer, words.begin)[1])
    users = np.bincount(experts.groups.group + 1, minlength=count + 1)
    match = "" if loaded.model.match is None else f" plus the match of texts ({MATCH_FILE})"
    score = f"{SCORES[loaded.recipe.score]}{match}, where the verdict is predicted; its sigmoid is the probability"
    manifest = {
        "model": MODEL,
        "merged_adapter": None if merged is None else merged.name,
        "adapters": [
            {
                "name": path.name,
                "path": path.name,
                "rank": ranks[number],
                "users": int(users[number]) if number else None,
            }
            for number, path in adapters.items()
        ],
        "prompt": params.prompt.model_dump(mode="json"),
        "slot_token": words.slot,
        "example": example_prompt(loaded),
        "verdicts": dict(zip(VERDICTS, words.verdicts, strict=True)),
        "score": score,
        "inputs": [path.name for path in inputs],
    }
    if expert is None:
        manifest[PROJECT] = PROJECT
    card = model_card(params, manifest, experts=count)
    with artifacts.atomic(folder) as partial:
        if expert is None:
            _copy_project(partial / PROJECT)
        artifacts.write_text(partial / CARD_FILE, card)
        save_model(model, tokenizer, partial / MODEL)
        for path in adapters.values():
            shutil.copytree(path, partial / path.name)
            config = partial / path.name / "adapter_config.json"
            artifacts.write_json(config, {**artifacts.read_json(config), "base_model_name_or_path": MODEL})
        for path in inputs:
            shutil.copy(path, partial)
        artifacts.write_json(partial / MANIFEST, manifest)
    return manifest


def _copy_project(folder: Path) -> None:
    """Copy what the project in the working directory is asked with; params.yaml without the raw files' path."""
    for path in ANSWERED_FROM:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path)
    yaml = YAML()
    params = yaml.load(Path(PARAMS_FILE))
    params["dataset"]["raw"] = None
    yaml.dump(params, folder / PARAMS_FILE)


def example_prompt(loaded: LoadedModel) -> dict[str, Any]:
    """The prompt of somebody made up, who liked one item and disliked another, about a third.

    `text` ends where the verdict is predicted. `slots` are the places of its tokens, from 0, whose embeddings features
    take (`slot_token` stands there), each with what it tells of: both, the user or the item.
    """
    item = np.resize(loaded.interactions["item"].unique()[:3], 3)
    layout = loaded.layout.over(pd.DataFrame({"user": 0, "item": item, "label": [1, 0, 0], "timestamp": range(3)}))
    (window,) = layout.scoring_windows(np.array([2]), np.zeros(1, np.int64))
    blocks = [layout.beginning(window), *layout.blocks(window)]
    tokens: list[int] = []
    slots = []
    for block in blocks:
        slots += [{"token": len(tokens) + offset, "of": SLOT_KINDS[kind]} for offset, _, kind in block.slots]
        tokens += block.tokens
    tokens = tokens[: len(tokens) - len(blocks[-1].tokens) + blocks[-1].verdict + 1]
    return {"text": loaded.tokenizer.decode(tokens), "tokens": tokens, "slots": slots}
