"""The whole pipeline on a small dataset, in one process and a folder of its own. Run: make quick"""

import os
import shutil
import time
from pathlib import Path

FOLDER = Path("out") / "quick"
# The small dataset, and of everything less: what comes out shows what there is to see, not how good it is.
CHANGES = {
    "dataset": {"name": "synthetic-small"},
    "features": {"epochs": 10},
    "traces": {"train": 400, "held_out": 20},
    "sft": {"batch_rows": 64},
    "refine": {"steps": 6, "rows": 64},
    "experts": {"n": 2, "min_users": 5},
    "evaluate": {"reasons": 40},
}


def main() -> None:
    """Run every stage in `FOLDER`, made anew, and say where the report is."""
    from ruamel.yaml import YAML

    from stages.__main__ import PIPELINE

    yaml, root, began = YAML(), Path.cwd(), time.monotonic()
    params = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    for section, changes in CHANGES.items():
        params[section].update(changes)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.chdir(FOLDER)
    with Path("params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    for stage in PIPELINE:
        print(f"{stage.__name__}: {stage()}", flush=True)
    report = FOLDER / "out" / "report" / "report.html"
    print(f"a small world, {time.monotonic() - began:.0f} s: open {report} in a browser; make repro is the real thing")


if __name__ == "__main__":
    main()
