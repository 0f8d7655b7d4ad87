"""Keywords by a teacher: a question per item, its answer checked, the TF-IDF extractor where it is no good.

Items whose metadata is the same ask once. An answer is used only if it is a list of keywords: `read_keywords` says why
it is not, and that reason, with the answer, is in the table of fallbacks. Checked is an answer's form; metadata that
talks a teacher into well-formed but false keywords cannot be told from metadata that is wrong.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from thinkrec.artifacts import FALLBACKS, ITEMS, SCHEMAS, read_table
from thinkrec.claims.answers import refusal
from thinkrec.claims.cleaning import EDGES, MOST_KEYWORDS, clean_keywords, instructs
from thinkrec.params import Params
from thinkrec.shown import LONGEST_KEYWORD, one_line
from thinkrec.synthesis.keywords import extract_keywords, keyword_stats
from thinkrec.teacher.answers import Answer
from thinkrec.teacher.budget import Spent
from thinkrec.teacher.client import Session, Unanswered, ask_about
from thinkrec.teacher.endpoint import Teacher, open_teacher
from thinkrec.teacher.item_prompts import LONGEST_NAME, write_item_line, write_item_question
from thinkrec.teacher.job import Job, describe_weakness, run_job
from thinkrec.teacher.quote import Quote, quote_job

Fault = Literal["refused", "truncated", "empty", "instruction", "verdict", "sentences"]
FAULTS: tuple[Fault, ...] = get_args(Fault)

MOST_WORDS = 5  # of a keyword
MOST_PROSE = 0.5  # share of an answer's entries that may be no keywords; with more, none is used

_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_PREFACE = re.compile(r"\A[^,;\n]{0,100}\bkey[\s-]?words?\b[^,;:\n]{0,100}:|\A[^\n]{0,200}:\s*$", re.I | re.M)
_SEPARATOR = re.compile(r"[,;|\n\r•、，；]+")
_ORDINAL = re.compile(r"^[\s*+–-]*(?:\(?\d{1,2}[.):]\s+|(?:and|or)\s+)?", re.IGNORECASE)
_VERDICT = re.compile(r"\W*(?:yes|no)\b\W*(?:$|[.!:;]|\s[–—-]\s)", re.IGNORECASE)
# Words of sentences that keywords hardly ever have, and what is left of other forms.
_PROSE = re.compile(
    r"\b(?:i|i['\u2019]m|you|we|he|she|they|it|it['\u2019]s|is|are|was|were|has|have|had|cannot|this|these|here|please"
    r"|key[\s-]?words?)\b|[\"{}\[\]<>=\\]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summaries:
    """`keywords` and `fallbacks` in the schemas of the artefacts KEYWORDS and FALLBACKS, and what the stage reports."""

    keywords: pd.DataFrame
    fallbacks: pd.DataFrame
    stats: dict[str, Any]

    def __str__(self) -> str:
        line = f"{self.stats['mean_keywords']:.1f} keywords per item for {self.stats['items']:,} items"
        if "by_teacher" not in self.stats:
            return line
        by_teacher, faults = self.stats["by_teacher"], self.stats["fallbacks"]
        weakness = describe_weakness(by_teacher, by_teacher + sum(faults.values()), faults)
        return f"{line}, {by_teacher:,} by the teacher{weakness}"


def summarise(items: pd.DataFrame, teacher: Teacher | None, *, progress: str = "keywords") -> Summaries:
    """At most MOST_KEYWORDS per item, in the order of `items`: the teacher's where its answer can be used.

    Args:
        items: columns `item`, `title`, `year` (null where unknown), `categories` (lists), `description`.
        teacher: who is asked; None: nobody, and all keywords are extracted.
        progress: names the bar on stderr; an empty name shows none.
    """
    extracted = extract_keywords(items)
    if teacher is None:
        stats = keyword_stats(extracted["keywords"].tolist())
        return Summaries(keywords=extracted, fallbacks=as_table(FALLBACKS, []), stats=stats)
    metadata = list(items[["title", "year", "categories", "description"]].itertuples(index=False, name=None))
    shared = _share_questions(metadata)
    asked = sorted({place for place in shared if place is not None})

    async def ask(session: Session, place: int) -> Answer:
        return await session.ask(write_item_question(write_item_line(*metadata[place])))

    answers = dict(zip(asked, ask_about(teacher, asked, ask, progress=progress, unit="item"), strict=True))
    readings = {place: read_keywords(answer) for place, answer in answers.items()}
    lists: list[list[str]] = extracted["keywords"].tolist()
    fallbacks: list[tuple[int, Fault, str]] = []
    for place, (item, first) in enumerate(zip(items["item"], shared, strict=True)):
        if first is None:
            continue
        words, fault = readings[first]
        if fault is None:
            lists[place] = words
        else:
            fallbacks.append((item, fault, answers[first].text))
    faults = Counter(fault for _, fault, _ in fallbacks)
    return Summaries(
        keywords=pd.DataFrame({"item": extracted["item"], "keywords": lists}),
        fallbacks=as_table(FALLBACKS, fallbacks),
        stats={
            **keyword_stats(lists),
            "asked": len(answers),
            "nothing_to_ask": shared.count(None),
            "by_teacher": len(lists) - shared.count(None) - len(fallbacks),
            "fallbacks": {fault: faults[fault] for fault in FAULTS},
            "prompt_tokens": sum(answer.prompt_tokens for answer in answers.values()),
            "completion_tokens": sum(answer.completion_tokens for answer in answers.values()),
        },
    )


def make_keywords(params: Params, report: Callable[..., None]) -> tuple[Summaries, Spent | None]:
    """The keywords of all items, and what asking for them took (also told to `report`); None: nobody was asked."""
    if params.keywords.source == "tfidf":
        return summarise(read_table(ITEMS), None), None
    return run_job(keyword_job(params), report)


def quote_keywords(params: Params) -> Quote:
    """What `make_keywords` would still ask the teacher."""
    if params.keywords.source == "tfidf":
        return Quote(stage="keywords", notes=("keywords: extracted without a teacher, as keywords.source has it",))
    return quote_job(keyword_job(params))


def keyword_job(params: Params) -> Job[Summaries]:
    """The stage's questions, where keywords.source is `teacher`."""

    def work(teacher: Teacher) -> Summaries:
        return summarise(read_table(ITEMS), teacher)

    return Job(stage="keywords", work=work, teacher=params.teacher_settings, turns=1)


def foresee_keywords(params: Params) -> tuple[pd.DataFrame, str]:
    """The keywords that the stage will make, and ""; nothing is sent.

    Where answers of a teacher are missing, all keywords are extracted ones, and the second says so in words.
    """
    items, missing = read_table(ITEMS), ""
    if params.keywords.source == "teacher":
        with suppress(Unanswered):
            replay = replace(open_teacher(params.teacher_settings), listener=lambda *_: None)
            return summarise(items, replay, progress="").keywords, ""
        missing = "keywords by the teacher are still to come, extracted ones stand in"
    return extract_keywords(items), missing


def _share_questions(metadata: Sequence[tuple[Any, ...]]) -> list[int | None]:
    """Whose question each item shares: that of the first with equal metadata, by its place; None: it has none."""
    first: dict[bytes, int] = {}  # by the line's hash: all lines together would be large
    shared: list[int | None] = []
    for place, values in enumerate(metadata):
        line = write_item_line(*values)
        shared.append(first.setdefault(hashlib.sha256(line.encode()).digest(), place) if line else None)
    return shared


def read_keywords(answer: Answer) -> tuple[list[str], Fault | None]:
    """The keywords of an answer, at most MOST_KEYWORDS, and None; or none, and why the answer cannot be used.

    - refused: by the server, or in words.
    - truncated: cut off at its longest.
    - instruction: it repeats an instruction, such as metadata may hold.
    - verdict: it says yes or no.
    - sentences: most of its entries are no keywords. Where fewer are, they are left out.
    - empty: nothing is left after the cleaning that all keywords go through.

    Read are entries between commas or line breaks, bare, numbered, bulleted or as JSON, after a preface or in a fence.
    """
    text = answer.text
    if answer.refused or refusal(text):
        return [], "refused"
    if answer.finish_reason == "length":
        return [], "truncated"
    if instructs(text):
        return [], "instruction"
    listed = _SEPARATOR.split(_PREFACE.sub("", _FENCE.sub("", text).strip(), count=1))
    bare = (_ORDINAL.sub("", one_line(entry, LONGEST_NAME).strip(EDGES)).strip(EDGES) for entry in listed)
    entries = [entry for entry in bare if entry]
    if any(_VERDICT.match(entry) for entry in entries):
        return [], "verdict"
    fit = [
        entry
        for entry in entries
        if len(entry) <= LONGEST_KEYWORD and len(entry.split()) <= MOST_WORDS and not _PROSE.search(entry)
    ]
    if len(entries) - len(fit) > MOST_PROSE * len(entries):
        return [], "sentences"
    words = clean_keywords(fit, MOST_KEYWORDS)
    return words, None if words else "empty"


def as_table(path: Path, records: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Records as a frame in the columns and types of an artefact's schema, whose columns are numbers and texts."""
    frame = pd.DataFrame.from_records(list(records), columns=SCHEMAS[path].names)
    return frame.astype({each.name: each.type.to_pandas_dtype() for each in SCHEMAS[path] if each.type != "string"})
