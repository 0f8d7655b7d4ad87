"""What tests of this room share: both families of models, and a folder of their own to leave checkpoints in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import FAMILIES, Family


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
