"""README and the pages of docs/: commands parse, what they name exists, the site builds without a broken link.

A command is a line of a fenced block, or a piece of inline code that begins like one. It is parsed by the program that
would run it, not run; overrides (-S) are applied to params.yaml by DVC's own code and checked by `thinkrec.params`.
"""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise

import pytest
import typer.main
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from benchmarks.__main__ import ALL as BENCHMARKS
from stages.__main__ import app as stages_app
from tests.project import PARAMS, PIPELINE, ROOT, declared_outs, make_project, run_stage
from thinkrec import params
from thinkrec.campaign.presets import join_overrides
from thinkrec.cli import app as commands_app

LOG = ROOT / "docs" / "log.md"  # of the past: it may name what is gone
GENERATED = {ROOT / "docs" / "results" / f"{path.name}.md" for path in (ROOT / "tables").iterdir() if path.is_dir()}
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")} - {LOG} - GENERATED)
APPS = {"thinkrec": commands_app, "thinkrec-stage": stages_app}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OTHER_PROGRAMS = ("export", "source", "pip", "git", "transformers", "pre-commit")
MADE_BY_RUNS = ("out/", ".cache/", ".venv", "models/", "models.lock.json")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = [name for name, value in PARAMS.items() if isinstance(value, dict)]
PARAMETER = re.compile(rf"(?:{'|'.join(SECTIONS)})\.\w+(?:=.*)?")
PATH = re.compile(r"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|yaml|toml|lock|json)")


def blocks_of(page):
    """The fenced blocks of a page, each with its language."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def inline_code(page):
    """The pieces of inline code of a page."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands_of(page):
    """The commands of a page: lines of its blocks that begin with a program's name, and inline ones."""
    programs = ("make", "dvc", "thinkrec", "thinkrec-stage", "python")
    lines = [
        line
        for language, block in blocks_of(page)
        if not language
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"[a-z-]+ |$", line) and not re.search(r"^[\w-]+ {3,}", line)
    ]
    pieces = [f"dvc exp run {code}" if code.startswith("-S ") else code for code in inline_code(page)]
    pieces = [piece for piece in pieces if piece.split()[0] in programs and len(piece.split()) > 1]
    printed = [
        re.sub(r"\$\(thinkrec presets ([^)]+)\)", lambda names: join_overrides(names[1].split()), line)
        for line in lines
    ]
    return [text for line in printed + pieces if (text := shlex.join(shlex.split(line, comments=True)))]


COMMANDS = list(dict.fromkeys((page, command) for page in PAGES for command in commands_of(page)))


def check_overrides(overrides, folder):
    """Apply overrides of params.yaml as `dvc exp run -S` does; every combination must be allowed."""
    for sweep in get_hydra_sweeps({"params.yaml": overrides}):
        path = folder / "params.yaml"
        path.write_bytes((ROOT / "params.yaml").read_bytes())
        apply_overrides(path, sweep["params.yaml"])
        params.load(path)


def check_dvc(arguments, folder):
    parsed = parse_args(arguments)
    assert set(getattr(parsed, "targets", None) or []) <= set(PIPELINE)
    if overrides := getattr(parsed, "set_param", None):
        check_overrides(overrides, folder)


def check_typer(program, arguments):
    group = typer.main.get_command(APPS[program])
    if arguments == ["--help"]:
        return
    context = group.make_context(program, list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))
    assert name and command
    command.make_context(name, rest, parent=context)


def check_make(arguments):
    for argument in arguments:
        variable, assigned, _ = argument.partition("=")
        wanted = f"$({variable})" if assigned else f"\n{argument}:"
        assert wanted in MAKEFILE, f"the Makefile has no {argument}"


def check_python(arguments, folder):
    assert arguments[0] == "-m", "only modules are run"
    assert find_spec(arguments[1])
    if arguments[1] == "benchmarks":
        assert set(arguments[2:]) <= {*BENCHMARKS, "--help"}
    elif arguments[1] == "stages":
        check_typer("thinkrec-stage", arguments[2:])


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page.stem}-{text}" for page, text in COMMANDS])
def test_every_command_is_one_that_its_program_takes(page, command, tmp_path):
    program, *arguments = shlex.split(command)
    if program == "dvc":
        check_dvc(arguments, tmp_path)
    elif program in APPS:
        check_typer(program, arguments)
    elif program == "make":
        check_make(arguments)
    elif program == "python":
        check_python(arguments, tmp_path)
    else:
        assert program in OTHER_PROGRAMS, f"{page.name}: {program} is no program that this test knows"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestNames:
    def test_parameters_exist_and_take_the_values_named(self, page, tmp_path):
        for code in inline_code(page):
            if PARAMETER.fullmatch(code) and "=" in code:
                check_overrides([code], tmp_path)
            elif PARAMETER.fullmatch(code) and not PATH.fullmatch(code):
                section, key = code.split(".")
                assert key in PARAMS[section], f"params.yaml has no {code}"

    def test_paths_of_the_repository_exist(self, page):
        for code in inline_code(page):
            if PATH.fullmatch(code) and not code.startswith(MADE_BY_RUNS) and ROOT / code not in GENERATED:
                assert (ROOT / code).exists(), f"there is no {code}"

    def test_links_lead_to_files(self, page):
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{link} leads nowhere"


def test_each_equation_stands_where_the_method_says():
    method = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|\n]+\| `(thinkrec/[^`]+)` \| (`[^|]+`) \|$", method, re.MULTILINE)
    assert len(rows) > 15
    for file, names in rows:
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def |async def |class |){name}\b[(:\[ ]", source, re.MULTILINE), (
                f"{file} has no {name}"
            )


class TestReadme:
    README = ROOT / "README.md"

    def test_it_is_short(self):
        text = self.README.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 120
        assert len(text.split()) <= 1300

    def test_pictures_are_small_and_no_outputs_of_a_run(self):
        pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", self.README.read_text(encoding="utf-8"))
        assert pictures
        for picture in pictures:
            assert (ROOT / picture).stat().st_size <= 300_000
            assert picture not in {out for stage in PIPELINE for out in declared_outs(stage)}

    def test_its_tree_is_what_is_there(self):
        tree = next(block for _, block in blocks_of(self.README) if "params.yaml, dvc.yaml" in block)
        folder = ROOT
        for line in tree.splitlines():
            if not line.startswith(" "):
                folder = ROOT
            for name in re.split(r", ", re.split(r" {2,}(?=\S)", line.strip())[0].split(" ")[0].rstrip(",")):
                assert (folder / name).exists(), f"there is no {folder / name}"
            if line.strip() == "thinkrec/":
                folder = ROOT / "thinkrec"

    def test_its_chain_is_the_pipeline(self):
        chain = next(block for _, block in blocks_of(self.README) if "└ ingest" in block)
        assert re.findall(r"[└├] (\w+)", chain) == list(PIPELINE)

    def test_your_own_data_pasted_is_ingested(self, tmp_path):
        command = next(text for text in commands_of(self.README) if "dataset.name=own" in text)
        project = make_project(tmp_path / "project")
        overrides = parse_args(shlex.split(command)[1:]).set_param
        apply_overrides(project / "params.yaml", overrides)
        users, items = range(6), range(5)
        rated = [(user, item, 1 + (user + item) % 5, 86_400 * (9 * item + user)) for user in users for item in items]
        lines = ["userId,movieId,stars,time", *(",".join(map(str, row)) for row in rated)]
        (project / "ratings.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        lines = ["movieId,title,genres,plot", *(f"{item},Film {item},Drama,A quiet harbour" for item in items)]
        (project / "movies.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        run_stage(project, "ingest")
        assert (project / "out" / "ingest" / "interactions.parquet").is_file()


class TestLog:
    HEADING = re.compile(r"^## (\d{4}-\d\d-\d\d) · .+ \(.*(?:kept|negative|open).*\)$", re.MULTILINE)

    def test_entries_are_newest_first_and_say_what_became_of_it(self):
        text = LOG.read_text(encoding="utf-8")
        dates = self.HEADING.findall(text)
        assert len(dates) > 30
        assert all(later >= earlier for later, earlier in pairwise(dates))
        assert len(re.findall(r"^## \d", text, re.MULTILINE)) == len(dates)


def test_the_site_builds_with_every_link_leading_somewhere_and_asks_no_other_server(tmp_path):
    strict = ["-q", "-n", "-W", "--keep-going"]
    build = [sys.executable, "-m", "sphinx", *strict, "-d", str(tmp_path / "doctrees"), "docs", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r"<(?:script|img)[^>]*src=\"([^\"]+)|<link[^>]*href=\"([^\"]+)", page.read_text("utf-8"))
        assert not [address for pair in fetched for address in pair if address.startswith(("http", "//"))]
