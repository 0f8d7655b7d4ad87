"""What the repository is to others: a wheel with one package, continuous integration, templates, a container."""

import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml

from tests.project import ROOT
from thinkrec import command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FORMS = sorted((ROOT / ".github").rglob("*.yml"))


def test_the_wheel_is_the_package_with_its_templates_and_nothing_beside_it(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"thinkrec", f"thinkrec-{PROJECT['version']}.dist-info"}
    kept = subprocess.run(["git", "ls-files", "thinkrec"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(kept.stdout.split()) <= set(names)


def test_stages_are_those_of_the_project_and_without_one_a_line_says_where_they_are(tmp_path, monkeypatch, capsys):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").touch()
    (tmp_path / "stages" / "__main__.py").write_text("import sys; print('ran', sys.argv[1:])")
    for module in [name for name in sys.modules if name.partition(".")[0] == "stages"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "argv", ["thinkrec-stage", "ingest"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    command.run_stages()
    assert capsys.readouterr().out == "ran ['ingest']\n"
    monkeypatch.setattr(command, "find_spec", lambda _: None)  # as where the wheel alone is installed
    with pytest.raises(SystemExit):
        command.run_stages()
    assert capsys.readouterr().err.startswith("thinkrec-stage: no stages here; the pipeline is the repository")


def test_continuous_integration_runs_targets_that_there_are_on_every_python_that_is_allowed():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    runs = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    targets = re.findall(r'make"?,? "?([\w./]+)', f"{runs} {(ROOT / 'Dockerfile').read_text(encoding='utf-8')}")
    assert {"check", "test", "docs", "quick"} <= set(targets)
    assert all(f"\n{target}:" in MAKEFILE for target in targets)
    least, below = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(least), int(below))]


@pytest.mark.parametrize("form", [form for form in FORMS if form.parent.name == "ISSUE_TEMPLATE"], ids=lambda f: f.stem)
def test_issue_templates_are_forms(form):
    template = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(template)
    assert all(part["attributes"]["label"] for part in template["body"])
