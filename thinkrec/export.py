"""A finished project's model as folders that others can load: adapters for a server, or one expert merged.

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
from peft import PeftModel

from thinkrec import artifacts
from thinkrec.errors import UserError
from thinkrec.experts import groups as grouping
from thinkrec.lm.adapters import expert_folders
from thinkrec.lm.backbone import open_backbone, save_model
from thinkrec.lm.mixture import read_lora
from thinkrec.lm.workbench import global_parts
from thinkrec.params import PromptParams
from thinkrec.text.question import Frame
from thinkrec.text.vocabulary import VERDICTS, find_vocabulary

MANIFEST = "manifest.json"
MODEL = "model"
SCORES = {"difference": "logit of Yes minus logit of No", "yes": "logit of Yes"}


def export(folder: Path, prompt: PromptParams, *, expert: int | None = None) -> dict[str, Any]:
    """Write the project in the working directory to the new `folder`; returns the manifest.

    Without `expert`, the model that adapters stand on and every adapter; else one model that expert number `expert`
    (from 1) is merged into, 0 being the global one.

    Raises:
        UserError: the folder has something in it, there is no such expert, or an artefact is missing.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a new folder, nothing is overwritten")
    groups = grouping.load(artifacts.ADDED)
    count = len(groups.centroids)
    if expert is not None and not 0 <= expert <= count:
        raise UserError(f"--expert {expert}: this project has experts 1 to {count}, and 0, the global model")
    recipe, base, global_adapter = global_parts()
    model, tokenizer = open_backbone(base)
    folders = dict(enumerate(expert_folders(count), 1))
    if global_adapter is not None:
        folders = {0: global_adapter, **folders}
    adapters = {} if expert is not None else folders
    ranks = {number: max(len(a) for a, _, _ in read_lora(path).values()) for number, path in adapters.items()}
    if expert in folders:
        read_lora(folders[expert])  # or peft would ask the hub for a missing file
        model = PeftModel.from_pretrained(model, str(folders[expert])).merge_and_unload()
    inputs = sorted(artifacts.SFT.glob("*.safetensors"))
    words = find_vocabulary(tokenizer)
    if prompt.layout == "question":  # verdicts stand after other text there
        words = find_vocabulary(tokenizer, after=Frame.of(tokenizer, words.begin).tail)
    manifest = {
        "model": MODEL,
        "merged_expert": expert or None,
        "adapters": [
            {
                "name": path.name,
                "path": path.name,
                "rank": ranks[number],
                "users": int(np.sum(groups.group == number - 1)) if number else None,
            }
            for number, path in adapters.items()
        ],
        "prompt": prompt.model_dump(mode="json"),
        "slot_token": words.slot,
        "verdicts": {word: token for word, token in zip(VERDICTS, words.verdicts, strict=True)},
        "score": f"{SCORES[recipe.score]}, where the verdict is predicted; its sigmoid is the probability",
        "inputs": [path.name for path in inputs],
    }
    with artifacts.atomic(folder) as partial:
        save_model(model, tokenizer, partial / MODEL)
        for path in adapters.values():
            shutil.copytree(path, partial / path.name)
            config = artifacts.read_json(path / "adapter_config.json")
            artifacts.write_json(
                partial / path.name / "adapter_config.json", {**config, "base_model_name_or_path": MODEL}
            )
        for path in inputs:
            shutil.copy(path, partial)
        artifacts.write_json(partial / MANIFEST, manifest)
    return manifest
