"""`params.yaml` is read as meant or refused in one line that says which parameter, and what it should be."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from thinkrec.errors import UserError
from thinkrec.params import BackboneParams, ItemFile, load

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = load(ROOT / "params.yaml").backbone.hidden


@pytest.fixture
def given(tmp_path):
    """Loads the repository's params.yaml with one change: a dotted name and its value as YAML, or None to drop it."""

    def change(name, value):
        params = YAML(typ="safe").load(ROOT / "params.yaml")
        *sections, key = name.split(".")
        inner = params
        for section in sections:
            inner = inner[section]
        if value is None:
            del inner[key]
        else:
            inner[key] = YAML(typ="safe").load(value)
        path = tmp_path / "params.yaml"
        YAML(typ="safe").dump(params, path)
        return load(path)

    return change


def refusal(load_it, *arguments):
    """The message of a refusal, without the file's path."""
    with pytest.raises(UserError) as caught:
        load_it(*arguments)
    return str(caught.value).partition("params.yaml: ")[2]


def test_the_repositorys_params_load():
    params = load(ROOT / "params.yaml")
    assert params.dataset.name == "synthetic"  # what `make repro` runs without a network
    assert params.backbone.name == "tiny"
    assert params.teacher.endpoint == "offline"


@pytest.mark.parametrize(
    ("name", "value", "nearest"),
    [
        ("evaluate.max_tokens", "3", "evaluate.max_new_tokens"),
        ("sead", "3", "seed"),
        ("experts.?", "3", None),  # like nothing known
        ('experts."a\\nb"', "3", None),
        ("dataset.columns", "{user: u, item: i, ratings: r, timestamp: t}", "dataset.columns.rating"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(given, name, value, nearest):
    assert re.fullmatch(rf"unknown parameter .*; did you mean {nearest or '.*'}\?", refusal(given, name, value))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", "1.5", "seed should be a whole number (it is 1.5)"),
        ("seed", "true", "seed should be a whole number (it is True)"),
        ("seed", "'7'", "seed should be a whole number (it is '7')"),
        ("seed", "-1", "seed should be greater than or equal to 0 (it is -1)"),
        ("experts.n", "automatic", "experts.n should be a whole number or auto (it is 'automatic')"),
        ("experts.n", "-1", "experts.n should be greater than or equal to 0, or auto (it is -1)"),
        ("experts.added", "new.txt", "experts.added should be a list of paths (it is 'new.txt')"),
        ("sft.learning_rate", "fast", "sft.learning_rate should be a number (it is 'fast')"),
        ("sft.learning_rate", ".nan", "sft.learning_rate should be a finite number (it is nan)"),
        ("dataset.raw", "3", "dataset.raw should be a path or null (it is 3)"),
        ("dataset.columns", "[a, b]", "dataset.columns should be a section with its own keys (it is ['a', 'b'])"),
        ("dataset.columns", "{user: u, item: i, timestamp: t}", "dataset.columns should name either a rating or a"),
        ("dataset.items", "{file: m.csv}", "dataset.items.item is missing; add it"),
        ("prompt.slots", "[usr]", "prompt.slots.0 should be 'user', 'item' or 'statistics' (it is 'usr')"),
        ("prompt.slots", "[user, user]", "prompt.slots should name each part once (it is ['user', 'user'])"),
        ("backbone.heads", "1000", f"backbone hidden ({HIDDEN}) should be a multiple of 2 * heads (2000)"),
        ("gate.kind", "{trained: 1}", "gate.kind should be"),
        ("gate", "3", "gate should be a section with its own keys (it is 3)"),
        ("teacher.mode", "batch", "teacher with mode=batch needs an endpoint that has a Batch API; the offline one"),
        ("run.max_cost", "5", "run with max_cost needs prompt_price, too; set it (per million tokens)"),
        (
            "teacher.request",
            "[1]",
            "teacher.request should be a mapping of names to values, such as {temperature: 0.7}",
        ),
        ("teacher.request", "{n: 2}", "teacher.request should not set n, which is set elsewhere; leave it out"),
        ("teacher.request", "{max_tokens: -1}", "teacher.request should set max_tokens to a whole number from 1 on"),
        ("teacher.request", "{x: 2020-01-01}", "teacher.request should hold what JSON can say (text, numbers,"),
        ("evaluate.candidates", "4", "evaluate with several candidates needs a temperature above 0, or all of them"),
        ("experts", None, "experts is missing; add it"),
        ("experts.n", None, "experts.n is missing; add it"),
    ],
)
def test_a_wrong_type_or_an_impossible_value_is_named_with_what_it_should_be(given, name, value, message):
    assert refusal(given, name, value).startswith(f"parameter {message}")


@pytest.mark.parametrize(
    ("name", "spelt", "meant"),
    [
        ("sft.learning_rate", "1e-3", 0.001),
        ("sft.learning_rate", "2", 2.0),
        ("sft.epochs", "1.0e+1", 10),
        ("experts.n", "auto", "auto"),
        ("experts.n", "0", 0),
        ("experts.added", "[new.txt, more.txt]", (Path("new.txt"), Path("more.txt"))),
        ("prompt.slots", "[]", ()),
        ("dataset.raw", "null", None),
        ("dataset.raw", "ml-1m.zip", Path("ml-1m.zip")),
        (
            "dataset.items",
            "{file: m.csv, item: i, description: plot}",
            ItemFile(file="m.csv", item="i", description="plot"),
        ),
    ],
)
def test_a_value_is_read_as_it_is_meant_however_yaml_spells_it(given, name, spelt, meant):
    section, key = name.split(".")
    value = getattr(getattr(given(name, spelt), section), key)
    assert value == meant and type(value) is type(meant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"seed: [7", "not valid YAML"),
        (b"seed: \x00", "not valid YAML"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"", "should hold sections such as `dataset:`; it holds NoneType"),
        (b"- seed\n- 7\n", "should hold sections such as `dataset:`; it holds list"),
        (None, "no such file; run from the project's root"),
    ],
)
def test_what_is_not_a_params_file_is_refused(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text)
    assert refusal(load, path).startswith(message)


def test_sections_cannot_be_changed():
    params = load(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.experts.n = 5


def test_a_home_is_known_wherever_a_path_may_stand(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    backbone = load(ROOT / "params.yaml").backbone.model_dump()
    assert BackboneParams(**{**backbone, "name": "~/models/x"}).name == "/home/somebody/models/x"
    with pytest.raises(ValueError, match="should begin with ~ only where there is such a home"):
        BackboneParams(**{**backbone, "name": "~nobody-of-that-name/x"})
