"""A finished project as folders that others can load: adapters for a server, one expert merged, or the traces as chats.

    DIR/README.md         the model card
    DIR/project/          all that `Recommender.from_export` answers from; none where an expert is merged
    DIR/manifest.json     what there is, and how to prompt it
    DIR/model/            the global model, or with an expert merged into it: a `transformers` directory
    DIR/expert_1/ ...     PEFT adapters on it; none where one is merged
    DIR/*.safetensors     what fills the slots and the soft prompt

A server that loads these reads text under one adapter. It does not fill slots (`lm.model.RecommenderLM.embed` makes the
prompt embeddings it would need), mix experts per user, or keep rows of the same second blind to each other.

Traces are another folder, a dataset: README.md, traces/*.jsonl and, where answers were refused, preferences/*.jsonl.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from peft import PeftModel
from ruamel.yaml import YAML
from transformers import PreTrainedModel

from thinkrec import artifacts
from thinkrec.card import model_card, traces_card
from thinkrec.claims.answers import parse_verdict, read_parts, trace_text
from thinkrec.claims.checker import open_checker
from thinkrec.errors import UserError
from thinkrec.experts.training import load_experts
from thinkrec.lm.adapters import read_lora
from thinkrec.lm.backbone import save_model
from thinkrec.lm.loaded import LoadedModel, open_global
from thinkrec.lm.model import MATCH_FILE
from thinkrec.params import PARAMS_FILE, Params
from thinkrec.provenance import PROVENANCE, check_dataset
from thinkrec.teacher.trace_prompts import SYSTEM, Message, write_data
from thinkrec.text.chat import frame_of
from thinkrec.text.layout import ITEM, USER, WHOLE, Layout
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
TRACED = (artifacts.INTERACTIONS, artifacts.TRACES, artifacts.REJECTED)
Form = Literal["answer", "reasoning"]  # of a chat's last message: all is the answer, or the reason stands before it
FORMS: dict[Form, str] = {
    "answer": "Answer with the word Yes or the word No. Then say in one paragraph what the history shows that matters "
    "here, what the user prefers and what the user avoids, and how the target fits that.",
    "reasoning": "Think of what the history shows that matters here, of what the user prefers and what the user "
    "avoids, and of how the target fits that. Then answer with the word Yes or the word No alone.",
}
SCORES = {"difference": "logit of Yes minus logit of No", "yes": "logit of Yes"}


def export(folder: Path, params: Params, *, expert: int | None = None) -> dict[str, Any]:
    """Write the project in the working directory to the new `folder`; returns the manifest.

    Without `expert`: the model that adapters stand on, and every adapter. With it: one model that the adapter of expert
    number `expert` (from 1; 0: the global one) is merged into.

    Raises:
        UserError: the folder has something in it, there is no such expert, it would be merged into 4 bits, or an
            artefact is missing or does not belong to the others.
    """
    _require_new(folder)
    experts = load_experts(params)
    count = len(experts.folders)
    if expert is not None and not 0 <= expert <= count:
        raise UserError(f"--expert {expert}: this project has experts 1 to {count}, and 0, the global model")
    loaded = open_global(params)
    every = {number: path for number, path in enumerate([loaded.adapter, *experts.folders]) if path is not None}
    merged = None if expert is None else every.get(expert)  # the global model of recipe `compact` is no adapter
    adapters = every if expert is None else {}
    users = np.bincount(experts.groups.group + 1, minlength=count + 1)
    inputs = sorted(artifacts.SFT.glob("*.safetensors"))
    manifest = {
        "model": MODEL,
        "merged_adapter": None if merged is None else merged.name,
        "adapters": [
            {
                "name": path.name,
                "path": path.name,
                "rank": max(len(a) for a, _, _ in read_lora(path).values()),
                "users": int(users[number]) if number else None,
            }
            for number, path in adapters.items()
        ],
        **_how_to_prompt(loaded, params),
        "inputs": [path.name for path in inputs],
    }
    if expert is None:
        manifest[PROJECT] = PROJECT
    card = model_card(params, manifest, experts=count)
    model = loaded.model.backbone if expert is None else _merge(loaded.model.backbone, merged, expert)
    with artifacts.atomic(folder) as partial:
        if expert is None:
            _copy_project(partial / PROJECT)
        artifacts.write_text(partial / CARD_FILE, card)
        save_model(model, loaded.tokenizer, partial / MODEL)
        for path in adapters.values():
            shutil.copytree(path, partial / path.name)
            config = partial / path.name / "adapter_config.json"
            artifacts.write_json(config, {**artifacts.read_json(config), "base_model_name_or_path": MODEL})
        for path in inputs:
            shutil.copy(path, partial)
        artifacts.write_json(partial / MANIFEST, manifest)
    return manifest


def _merge(model: PreTrainedModel, adapter: Path | None, expert: int) -> PreTrainedModel:
    """The model with the adapter of expert number `expert` merged into it; as it is where there is none."""
    if getattr(model, "is_quantized", False):
        raise UserError(
            f"--expert {expert}: weights of 4 bits, or few (the backbone is quantised), would round a merge by more "
            "than the adapter changes; leave --expert out, and load the adapters beside the model"
        )
    if adapter is None:
        return model
    read_lora(adapter)  # or peft would ask the hub for a missing file
    merged: PreTrainedModel = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return merged


def _how_to_prompt(loaded: LoadedModel, params: Params) -> dict[str, Any]:
    """What the manifest says of the prompt, and of what is read as the score."""
    words = find_vocabulary(loaded.tokenizer)
    if params.prompt.layout == "question":  # verdicts stand after other text there
        words = find_vocabulary(loaded.tokenizer, after=frame_of(loaded.tokenizer, words.begin)[1])
    match = "" if loaded.model.match is None else f" plus the match of texts ({MATCH_FILE})"
    what = SCORES[loaded.recipe.score] + match
    return {
        "prompt": params.prompt.model_dump(mode="json"),
        "slot_token": words.slot,
        "example": example_prompt(loaded),
        "verdicts": dict(zip(VERDICTS, words.verdicts, strict=True)),
        "score": f"{what}, where the verdict is predicted; its sigmoid is the probability",
    }


def export_traces(folder: Path, params: Params, form: Form) -> dict[str, int]:
    """Write the traces of the project in the working directory to the new `folder`; returns the rows of each file.

    A chat's question is the teacher's, but for the form of the answer: a trace is kept without its lines' labels, and a
    model should not learn to answer otherwise than it is asked. Refused answers are brought into the same form.

    Raises:
        UserError: the folder has something in it, or an artefact is missing or does not belong to the others.
    """
    _require_new(folder)
    check_dataset(params.dataset)
    interactions, traces, refused = map(artifacts.read_table, TRACED)
    checker = open_checker(params, interactions)
    text_of = dict(zip(traces["row"].tolist(), traces["text"], strict=True))
    if not all(claim.true for row, text in text_of.items() for claim in checker.check(row, text).claims):
        raise artifacts.faulty_artifact(artifacts.TRACES, "a trace is not true of what params.yaml's prompt shows")
    opening, *_, rules, untrusted = SYSTEM.split("\n")
    system = "\n".join([opening, FORMS[form], rules.partition(". ")[2], untrusted])  # less what it says of lines
    records, prompts = [], {}
    for row, text in text_of.items():
        question = f"{write_data(checker.shown(row))}\nWould the user like the target?"
        prompts[row] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        records.append(("traces", row, {"messages": [*prompts[row], _reply(text, form)]}))
    for row, fault, answer in refused[["row", "fault", "text"]].itertuples(index=False):
        verdict = parse_verdict(answer)
        if row not in text_of or verdict is None:
            continue
        with suppress(ValueError):  # a part is missing
            pair = {"chosen": text_of[row], "rejected": trace_text(verdict, read_parts(answer))}
            if pair["chosen"] != pair["rejected"]:  # as where the fault stands behind the verdict, which is not kept
                replies = {name: [_reply(text, form)] for name, text in pair.items()}
                records.append(("preferences", row, {"prompt": prompts[row], **replies, "fault": fault}))
    files: dict[str, dict[str, None]] = {}  # lines, each once
    for subset, row, record in records:
        split = "train" if interactions["split"][row] == "train" else "test"
        files.setdefault(f"{subset}/{split}.jsonl", {})[json.dumps(record)] = None
    rows = {name: len(lines) for name, lines in files.items()}
    with artifacts.atomic(folder) as partial:
        artifacts.write_text(partial / CARD_FILE, traces_card(params, rows))
        for name, lines in files.items():
            artifacts.write_text(partial / name, "\n".join([*lines, ""]))
    return rows


def _reply(text: str, form: Form) -> Message:
    """The last message of a chat, of a trace's text."""
    verdict, _, reason = text.partition(". ")
    answer = {"content": text} if form == "answer" else {"reasoning_content": reason, "content": verdict}
    return {"role": "assistant", **answer}


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a new folder, nothing is overwritten")


def _copy_project(folder: Path) -> None:
    """Copy what the project in the working directory is asked with; params.yaml without addresses and paths."""
    for path in ANSWERED_FROM:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path)
    yaml = YAML()
    params = yaml.load(Path(PARAMS_FILE))
    params["dataset"]["raw"] = params["evaluate"]["bertscore"] = params["evaluate"]["bleurt"] = None
    params["teacher"] |= {"endpoint": "offline", "model": "offline", "request": {}}
    params["experts"]["added"] = [Path(path).name for path in params["experts"]["added"]]
    yaml.dump(params, folder / PARAMS_FILE)


def example_prompt(loaded: LoadedModel) -> dict[str, Any]:
    """The prompt of somebody made up, who liked one item and disliked another, about a third.

    `text` ends where the verdict is predicted. `slots` are the places of its tokens, from 0, whose embeddings features
    take (`slot_token` stands there), each with what it tells of: both, the user or the item.
    """
    item = np.resize(loaded.interactions["item"].unique()[:3], 3)
    layout = loaded.layout.over(pd.DataFrame({"user": 0, "item": item, "label": [1, 0, 0], "timestamp": range(3)}))
    tokens, slots = prompt_of(layout, 2)
    return {"text": loaded.tokenizer.decode(tokens), "tokens": tokens, "slots": slots}


def prompt_of(layout: Layout, row: int) -> tuple[list[int], list[dict[str, Any]]]:
    """The tokens of an interaction's prompt, up to where its verdict is predicted, and the slots among them.

    A server reads them one after the other. That is what the model does, but that in a layout `stream` earlier
    interactions of one second do not see each other.
    """
    (window,) = layout.scoring_windows(np.array([row]), np.zeros(1, np.int64))
    blocks = [layout.beginning(window), *layout.blocks(window)]
    tokens: list[int] = []
    slots: list[dict[str, Any]] = []
    for block in blocks:
        slots += [{"token": len(tokens) + offset, "of": SLOT_KINDS[kind]} for offset, _, kind in block.slots]
        tokens += block.tokens
    return tokens[: len(tokens) - len(blocks[-1].tokens) + blocks[-1].verdict + 1], slots
