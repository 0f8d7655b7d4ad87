"""`params.yaml` is read as meant or refused in one line that says which parameter, and what it should be."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from thinkrec.errors import UserError
from thinkrec.params import BackboneParams, load

ROOT = Path(__file__).resolve().parents[1]


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
    """The message of a refusal, without the file's path; always a single line."""
    with pytest.raises(UserError) as caught:
        load_it(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.partition("params.yaml: ")[2]


def test_the_repositorys_params_load():
    params = load(ROOT / "params.yaml")
    assert params.dataset.name == "synthetic"  # what `make repro` runs without a network
    assert params.backbone.name == "tiny"
    assert params.teacher.endpoint == "offline"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("experts.m", "experts.n"),
        ("evaluate.max_tokens", "evaluate.max_new_tokens"),
        ("expert", "experts"),
        ("sead", "seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(given, name, nearest):
    assert refusal(given, name, "3") == f"unknown parameter {name}; did you mean {nearest}?"


@pytest.mark.parametrize("key", ["xyz", "2", "''", '"a\\nb"', "?"])
def test_a_key_like_nothing_known_is_still_refused_in_one_line(given, key):
    assert refusal(given, f"experts.{YAML(typ='safe').load(key)}", "3")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seed", "1.5", "seed should be a whole number (it is 1.5)"),
        ("seed", "true", "seed should be a whole number (it is True)"),
        ("seed", "'7'", "seed should be a whole number (it is '7')"),
        ("seed", "-1", "seed should be greater than or equal to 0 (it is -1)"),
        ("experts.n", "automatic", "experts.n should be a whole number or auto (it is 'automatic')"),
        ("experts.n", "-1", "experts.n should be greater than or equal to 0, or auto (it is -1)"),
        ("experts.added", "new.txt", "experts.added should be a list of paths (it is 'new.txt')"),
        ("sft.learning_rate", "fast", "sft.learning_rate should be a number (it is 'fast')"),
        ("sft.learning_rate", "0", "sft.learning_rate should be greater than 0 (it is 0)"),
        ("sft.learning_rate", ".nan", "sft.learning_rate should be a finite number (it is nan)"),
        ("sft.think_share", "1", "sft.think_share should be less than 1 (it is 1)"),
        ("sft.reason_first", "1.5", "sft.reason_first should be less than or equal to 1 (it is 1.5)"),
        ("dataset.name", "3", "dataset.name should be a valid string (it is 3)"),
        ("dataset.raw", "3", "dataset.raw should be a path or null (it is 3)"),
        ("dataset.columns", "[a, b]", "dataset.columns should be a section with its own keys (it is ['a', 'b'])"),
        (
            "dataset.columns",
            "{user: u, item: i, timestamp: t}",
            "dataset.columns should name either a rating or a label",
        ),
        ("prompt.slots", "[usr]", "prompt.slots.0 should be 'user', 'item' or 'statistics' (it is 'usr')"),
        ("prompt.slots", "[user, user]", "prompt.slots should name each part once (it is ['user', 'user'])"),
        ("backbone.heads", "1000", "backbone hidden (HIDDEN) should be a multiple of 2 * heads (2000)"),
        ("gate.kind", "softmax", "gate.kind should be 'centroid' or 'trained' (it is 'softmax')"),
        (
            "teacher.mode",
            "batch",
            "teacher with mode=batch needs an endpoint that has a Batch API; the offline one answers at once",
        ),
        ("run.max_cost", "5", "run with max_cost needs prompt_price, too; set it (per million tokens)"),
        (
            "teacher.request",
            "[1]",
            "teacher.request should be a mapping of names to values, such as {temperature: 0.7}; {} for none "
            "(it is [1])",
        ),
        ("teacher.request", "{n: 2}", "teacher.request should not set n, which is set elsewhere; leave it out"),
        ("teacher.request", "{max_tokens: -1}", "teacher.request should set max_tokens to a whole number from 1 on"),
        (
            "teacher.request",
            "{x: 2020-01-01}",
            "teacher.request should hold what JSON can say (text, numbers, lists, mappings)",
        ),
        (
            "evaluate.temperature",
            "0",
            "evaluate with several candidates needs a temperature above 0, or all of them are the same",
        ),
        ("gate", "3", "gate should be a section with its own keys (it is 3)"),
    ],
)
def test_a_wrong_type_or_an_impossible_value_is_named_with_what_it_should_be(given, name, value, said):
    hidden = load(ROOT / "params.yaml").backbone.hidden
    assert refusal(given, name, value) == f"parameter {said.replace('HIDDEN', str(hidden))}"


@pytest.mark.parametrize("name", ["seed", "experts", "experts.n", "dataset.raw"])
def test_a_missing_key_is_named(given, name):
    assert refusal(given, name, None) == f"parameter {name} is missing; add it"


@pytest.mark.parametrize(("spelt", "meant"), [("1e-3", 0.001), ("1E3", 1000.0), ("2", 2.0)])
def test_a_number_is_a_number_however_yaml_spells_it(given, spelt, meant):
    assert given("sft.learning_rate", spelt).sft.learning_rate == meant


@pytest.mark.parametrize(("spelt", "meant"), [("3", 3), ("3.0", 3), ("1.0e+1", 10)])
def test_a_whole_number_may_be_spelt_as_a_float(given, spelt, meant):
    epochs = given("sft.epochs", spelt).sft.epochs
    assert epochs == meant
    assert isinstance(epochs, int)


def test_the_number_of_experts_may_be_left_to_the_users(given):
    assert given("experts.n", "auto").experts.n == "auto"
    assert given("experts.n", "0").experts.n == 0


def test_experts_may_be_added_by_files(given):
    assert given("experts.added", "[new.txt, more.txt]").experts.added == (Path("new.txt"), Path("more.txt"))


def test_columns_of_ones_own_are_mapped(given):
    columns = given("dataset.columns", "{user: u, item: i, rating: r, timestamp: t}").dataset.columns
    assert (columns.user, columns.rating, columns.split) == ("u", "r", None)
    items = given("dataset.items", "{file: m.csv, item: i, description: plot}").dataset.items
    assert (items.file, items.title, items.description) == (Path("m.csv"), None, ("plot",))


def test_an_unknown_column_role_is_refused_with_the_nearest(given):
    said = refusal(given, "dataset.columns", "{user: u, item: i, ratings: r, timestamp: t}")
    assert said == "unknown parameter dataset.columns.ratings; did you mean dataset.columns.rating?"
    said = refusal(given, "dataset.columns", "{user_id: u, item: i, rating: r, timestamp: t}")
    assert said == "unknown parameter dataset.columns.user_id; did you mean dataset.columns.user?"
    assert refusal(given, "dataset.items", "{file: m.csv}") == "parameter dataset.items.item is missing; add it"


def test_no_slots_and_no_raw_file_may_be_asked_for(given):
    assert given("prompt.slots", "[]").prompt.slots == ()
    assert given("dataset.raw", "null").dataset.raw is None
    assert given("dataset.raw", "ml-1m.zip").dataset.raw == Path("ml-1m.zip")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"seed: [7", "not valid YAML"),
        (b"seed: 7\n\tgate: 1\n", "not valid YAML"),
        (b"seed: \x00", "not valid YAML"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"", "should hold sections such as `dataset:`; it holds NoneType"),
        (b"- seed\n- 7\n", "should hold sections such as `dataset:`; it holds list"),
    ],
)
def test_what_is_not_a_params_file_is_refused(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    assert refusal(load, path).startswith(said)


def test_without_the_file_one_is_told_where_to_stand(tmp_path):
    assert "run from the project's root" in refusal(load, tmp_path / "params.yaml")


def test_sections_cannot_be_changed():
    params = load(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.experts.n = 5


def test_deeper_than_sections_go_nothing_is_known(given):
    assert refusal(given, "gate.kind", "{trained: 1}").startswith("parameter gate.kind should be")


def test_a_home_is_known_wherever_a_path_may_stand(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    backbone = load(ROOT / "params.yaml").backbone.model_dump()
    assert BackboneParams(**{**backbone, "name": "~/models/x"}).name == "/home/somebody/models/x"
    with pytest.raises(ValueError, match="should begin with ~ only where there is such a home"):
        BackboneParams(**{**backbone, "name": "~nobody-of-that-name/x"})
