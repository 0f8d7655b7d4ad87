"""Time what must be fast, each thing against another in the same run. `python -m benchmarks --help` says more."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import argparse
import warnings
from collections.abc import Callable, Iterator

from tqdm import tqdm

from benchmarks.catalogue import catalogue
from benchmarks.features import statistics
from benchmarks.fusion import fusion
from benchmarks.ingest import ingestion
from benchmarks.measure import Line, as_text
from benchmarks.scoring import ranking, scoring
from benchmarks.serving import serving
from benchmarks.shared import shared
from benchmarks.teacher import teacher
from benchmarks.training import memory, training

ALL: dict[str, Callable[[], Iterator[Line]]] = {
    "fusion": fusion,
    "training": training,
    "memory": memory,
    "shared": shared,
    "ranking": ranking,
    "scoring": scoring,
    "serving": serving,
    "catalogue": catalogue,
    "statistics": statistics,
    "teacher": teacher,
    "ingestion": ingestion,
}
ABOUT = """\
Time what must be fast, and print a table: what, what it is held against, what each takes (medians), their ratio,
the goal, and whether it is met. A and B run in turn in one process, or each in one of its own where peak memory is
told, so ratios can be trusted on a noisy machine, single seconds less. Nothing fails where a goal is missed. All of it
takes some twenty minutes on two cores, and 2 GB of disk for a while. TRL is needed for two lines:
pip install -e '.[bench]'. On a CUDA device, models of real sizes: python -m benchmarks.cuda

benchmarks:
"""


def main() -> None:
    """Run those that are named, or all."""
    listed = "\n".join(f"  {name:<11} {(make.__doc__ or '').splitlines()[0]}" for name, make in ALL.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=ABOUT + listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", help="what to run (all)")
    names = parser.parse_args().name or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"{unknown[0]}: no such benchmark; there are {', '.join(ALL)}")
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted", category=UserWarning)
    with tqdm(names, disable=None, leave=False) as bar:
        lines: list[Line] = []
        for name in bar:
            bar.set_description(name)
            lines += ALL[name]()
    print(as_text(lines))


if __name__ == "__main__":
    main()
