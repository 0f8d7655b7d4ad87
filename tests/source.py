"""What the files of this project import of each other."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from tests.project import ROOT


def _module_file(name: str) -> Path | None:
    """The file of a module of this project; None for packages (their __init__ files are empty) and for others."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    return path if name.split(".")[0] in ("thinkrec", "stages") and path.is_file() else None


@functools.cache
def imported_files(path: Path) -> frozenset[Path]:
    """The files of this project that one imports, within functions too; what all stages share is left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = {file for name in names if (file := _module_file(name)) is not None}
    return frozenset(files - {ROOT / "thinkrec" / "command.py"})
