"""What the commands over a finished project read and show: CSV files of ids, and tables for a terminal.

Ids are text, also where they look like numbers: "007" stays "007". Titles and reasons are never read as markup.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinkrec.answers.explanation import Explanation
from thinkrec.answers.names import read_liked
from thinkrec.artifacts import ROOT, atomic
from thinkrec.errors import UserError

CLAIM_WORDS = {  # what a claim says -> the same for a terminal
    "liked": "liked",
    "disliked": "disliked",
    "prefers": "preferred",
    "avoids": "avoided",
    "target": "in the target",
    "lacks": "not in the target",
    "named": "",
}
STANDING_WORDS: dict[str, str] = {  # how a claim stands to what was shown -> the same for a terminal
    "true": "yes",
    "synonym": "by meaning",
    "ungrounded": "not shown",
    "no_taste": "a name, no taste",
    "unsupported": "too few titles",
    "untrue": "no",
}


HEADS = {"place": "", "probability": "would like"}  # of a table's columns; the others have their names


def read_ids(path: Path, columns: tuple[str | tuple[str, ...], ...]) -> pd.DataFrame:
    """A CSV file, every cell as text. A tuple in `columns` names columns of which one is enough.

    Raises:
        UserError: it is absent, not CSV, lacks one of the columns, or a line has not as many fields as the first.
    """
    records: list[list[str]] = []
    wanted = [(column,) if isinstance(column, str) else column for column in columns]
    listed = ", ".join(" or ".join(any_of) for any_of in wanted)
    try:
        # Spreadsheets put a byte order mark before the first column's name; utf-8-sig skips it.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = [name.strip() for name in next(lines, [])]
            for fields in filter(None, lines):
                if len(fields) != len(names):
                    raise UserError(
                        f"{path}: line {lines.line_num}: {len(fields)} fields, but the first line names {len(names)} "
                        "columns; put a field with a comma in it in quotes"
                    )
                records.append(fields)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it should be CSV with the columns {listed}") from None
    except (csv.Error, ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({' '.join(str(error).split())})") from None
    for any_of in wanted:
        present = [name for name in any_of if name in names]
        if not present or names.count(present[0]) != 1:
            fault = f"two columns {present[0]}" if present else f"no column {' or '.join(any_of)}"
            raise UserError(f"{path}: {fault}; its first line should name {listed}, separated by commas")
    return pd.DataFrame(records, columns=names, dtype="str")


def read_history(path: Path) -> list[tuple[str, bool]]:
    """A history: CSV with `item_id` or `title`, and `liked` (yes or no, 1 or 0, true or false), oldest first.

    Raises:
        UserError: as `read_ids`, or `liked` holds another word.
    """
    frame = read_ids(path, (("item_id", "title"), "liked"))
    item = "item_id" if "item_id" in frame else "title"
    return [(name, read_liked(liked, f"{path}: item {name}")) for name, liked in frame[[item, "liked"]].to_numpy()]


def read_user(user: str | None, history: Path | None) -> str | list[tuple[str, bool]]:
    """Whom a command is about: a user id, or the history in a file.

    Raises:
        UserError: neither is given, or both are.
    """
    if (user is None) == (history is None):
        raise UserError("name a user with --user ID, or a person never seen with --history FILE (one of the two)")
    return read_history(history) if history is not None else str(user)


def require_file(path: Path) -> None:
    """Raise the one line that says that nothing can be written to `path`: a folder, or among a stage's artefacts."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file to write")
    if ROOT.resolve() in path.resolve().parent.parents:
        raise UserError(f"{path}: is among a stage's artefacts, which DVC would find changed; name a file elsewhere")


def write_scores(path: Path, pairs: pd.DataFrame) -> None:
    """Write scored pairs as CSV, at once or not at all; where there is no probability, its cell is empty."""
    with atomic(path) as partial:
        pairs.to_csv(partial, index=False, float_format="%.6f")


def unknown_ids(pairs: pd.DataFrame, user: NDArray[np.int64], item: NDArray[np.int64]) -> dict[str, list[str]]:
    """The ids in `pairs` that have no number (-1), each once: of `users` and of `items`."""
    numbers = {"users": ("user_id", user), "items": ("item_id", item)}
    return {kind: pairs[column][number < 0].unique().tolist() for kind, (column, number) in numbers.items()}


def id_table(frame: pd.DataFrame, *columns: str) -> Table:
    """A table of the `columns` of `frame`; nothing in it is cut, only folded."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        head = HEADS.get(column, column.replace("_", " "))
        right = column in ("place", "year", "interactions", "probability")
        table.add_column(head, justify="right" if right else "left", overflow="fold", no_wrap=column.endswith("_id"))
    for row in frame[list(columns)].to_dict("records"):
        table.add_row(*(Text(_cell(column, value)) for column, value in row.items()))
    return table


def _cell(column: Hashable, value: Any) -> str:
    if column == "probability":
        return f"{value:.1%}"
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def recommendations_table(recommended: pd.DataFrame) -> Table:
    """A table of what `Recommender.recommend` returned."""
    placed = recommended.assign(place=range(1, len(recommended) + 1))
    return id_table(placed, "place", "title", "item_id", "probability")


def explanation_table(explanation: Explanation) -> RenderableType:
    """What `Recommender.explain` returned: the figures, the reason, then its claims and whether they are true."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("item", Text(f"{explanation.title} ({explanation.item_id})", style="bold"))
    facts.add_row("keywords", Text(", ".join(explanation.keywords) or "none"))
    facts.add_row("would like", f"{explanation.probability:.1%}")
    facts.add_row("experts", ", ".join(f"{name} {weight:.0%}" for name, weight in explanation.weights.items()))
    for number, (verb, liked) in enumerate((("liked", True), ("disliked", False))):
        titles = explanation.history["title"][explanation.history["liked"] == liked]
        facts.add_row("" if number else "history", Text(f"{verb}: {', '.join(titles) or 'nothing'}"))
    facts.add_row("reason", Text(explanation.reason or "(the model wrote none)"))
    if explanation.evidence.empty:
        return Group(facts, Text("The reason claims nothing of any title or keyword.", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, title="What the reason claims, and what was shown", title_justify="left")
    if "synonym" in set(explanation.evidence["standing"]):
        table.caption = f"\u2248: true by meaning alone, by {explanation.thesaurus}"
    for name in ("claim", "shown", "true"):
        table.add_column(name, overflow="fold")
    for row in explanation.evidence.itertuples(index=False):
        style = "green" if row.true else "yellow" if row.true_by_meaning else "red"
        meant = f" \u2248 {row.synonyms!s}" if row.synonyms else ""
        of = f" ({row.of!s})" if row.of else ""
        claimed = f": {says}" if (says := CLAIM_WORDS[str(row.says)]) else ""
        counts = (("liked", row.liked), ("disliked", row.disliked))
        places = ["in the target"] * bool(row.target) + [f"{verb} {count!s}" for verb, count in counts if count]
        table.add_row(
            Text(f"{row.kind} {row.name}{meant}{claimed}{of}"),
            ", ".join(places) or "nowhere",
            Text(STANDING_WORDS[str(row.standing)], style=style),
        )
    return Group(facts, table)
