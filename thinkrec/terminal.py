"""What the commands over a finished project read and show: CSV files of ids, and tables for a terminal.

Ids are text, also where they look like numbers: "007" stays "007". Titles and reasons are never read as markup.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from thinkrec.artifacts import atomic
from thinkrec.errors import UserError
from thinkrec.recommender import Explanation, read_liked

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


def read_ids(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV file, every cell as text.

    Raises:
        UserError: it is absent, not CSV, lacks one of the columns, or a line has not as many fields as the first.
    """
    records: list[list[str]] = []
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
        raise UserError(f"{path}: no such file; it should be CSV with the columns {', '.join(columns)}") from None
    except (csv.Error, ValueError, OSError) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({' '.join(str(error).split())})") from None
    for name in columns:
        if names.count(name) != 1:
            fault = "two columns" if name in names else "no column"
            raise UserError(
                f"{path}: {fault} {name}; its first line should name {', '.join(columns)}, separated by commas"
            )
    return pd.DataFrame(records, columns=names, dtype="str")


def read_history(path: Path) -> list[tuple[str, bool]]:
    """A history: CSV with `item_id` and `liked` (yes or no, 1 or 0, true or false), oldest first.

    Raises:
        UserError: as `read_ids`, or `liked` holds another word.
    """
    frame = read_ids(path, ("item_id", "liked"))
    return [(item, read_liked(liked, f"{path}: item {item}")) for item, liked in frame[["item_id", "liked"]].to_numpy()]


def read_user(user: str | None, history: Path | None) -> str | list[tuple[str, bool]]:
    """Whom a command is about: a user id, or the history in a file.

    Raises:
        UserError: neither is given, or both are.
    """
    if (user is None) == (history is None):
        raise UserError("name a user with --user ID, or a person never seen with --history FILE (one of the two)")
    return read_history(history) if history is not None else str(user)


def write_scores(path: Path, pairs: pd.DataFrame) -> None:
    """Write scored pairs as CSV, at once or not at all."""
    with atomic(path) as partial:
        pairs.to_csv(partial, index=False, float_format="%.6f")


def recommendations_table(recommended: pd.DataFrame) -> Table:
    """A table of what `Recommender.recommend` returned."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "title", "item id", "would like"):
        table.add_column(name, justify="left" if name in ("title", "item id") else "right")
    for place, row in enumerate(recommended.itertuples(index=False), 1):
        table.add_row(str(place), Text(str(row.title)), Text(str(row.item_id)), f"{row.probability:.1%}")
    return table


def explanation_table(explanation: Explanation) -> RenderableType:
    """What `Recommender.explain` returned: the figures, the reason, then its claims and whether they are true."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    facts.add_row("item", Text(f"{explanation.title} ({explanation.item_id})", style="bold"))
    facts.add_row("keywords", Text(", ".join(explanation.keywords) or "none"))
    facts.add_row("would like", f"{explanation.probability:.1%}")
    facts.add_row("experts", ", ".join(f"{name} {weight:.0%}" for name, weight in explanation.weights.items()))
    facts.add_row("history", f"{explanation.history} earlier interactions in sight")
    facts.add_row("reason", Text(explanation.reason or "(the model wrote none)"))
    if explanation.evidence.empty:
        return Group(facts, Text("The reason claims nothing of any title or keyword.", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, title="What the reason claims, and what was shown", title_justify="left")
    if "synonym" in set(explanation.evidence["standing"]):
        table.caption = f"\u2248: true by meaning alone, by {explanation.thesaurus}"
    for name in ("", "named", "said to be", "of", "in the target", "liked", "disliked", "true"):
        table.add_column(name, justify="right" if name in ("liked", "disliked") else "left")
    for row in explanation.evidence.itertuples(index=False):
        in_target = "yes" if row.target else ""
        style = "green" if row.true else "yellow" if row.true_by_meaning else "red"
        claimed = CLAIM_WORDS[str(row.says)]
        table.add_row(
            str(row.kind),
            Text(f"{row.name!s} \u2248 {row.synonyms!s}" if row.synonyms else str(row.name)),
            claimed,
            Text(str(row.of)),
            in_target,
            str(row.liked),
            str(row.disliked),
            Text(STANDING_WORDS[str(row.standing)], style=style),
        )
    return Group(facts, table)
