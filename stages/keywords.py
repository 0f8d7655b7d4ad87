"""Item metadata -> at most ten keywords per item. Run: thinkrec-stage keywords"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from stages._command import DryRun, note

if TYPE_CHECKING:
    from thinkrec.params import Params
    from thinkrec.synthesis.summaries import Summaries
    from thinkrec.teacher.client import Teacher
    from thinkrec.teacher.quote import Quote


def keywords(dry_run: DryRun = False) -> str:
    """Summarise item metadata into keywords."""
    from dataclasses import asdict

    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.teacher.batch import carry_out
    from thinkrec.teacher.client import open_teacher
    from thinkrec.teacher.quote import show

    params = load()
    if dry_run:
        return show([price(params)])
    if params.keywords.source == "tfidf":
        made, sent = ask(params, None), ""
    else:
        teacher = open_teacher(params.teacher_settings)
        try:
            made = carry_out(partial(ask, params), teacher)
        finally:
            note(**asdict(teacher.spent))
        sent = f", {made.stats['by_teacher']:,} by the teacher; sent {teacher.spent}"
    artifacts.write_table(artifacts.KEYWORDS, made.keywords)
    artifacts.write_table(artifacts.FALLBACKS, made.fallbacks)
    artifacts.write_metrics("keywords", made.stats)
    return f"{made.stats['mean_keywords']:.1f} keywords per item for {made.stats['items']:,} items{sent}"


def price(params: Params) -> Quote:
    """What the stage would still ask the teacher."""
    from thinkrec.teacher.quote import Quote, quote

    if params.keywords.source == "tfidf":
        return Quote(stage="keywords", notes=("keywords: extracted without a teacher, as keywords.source has it",))
    return quote("keywords", partial(ask, params), params.teacher_settings, turns=1)


def ask(params: Params, teacher: Teacher | None) -> Summaries:
    """What this teacher's answers to the stage's questions come to; without one, what is extracted."""
    from thinkrec import artifacts
    from thinkrec.synthesis.summaries import summarise

    return summarise(artifacts.read_table(artifacts.ITEMS), teacher, max_per_item=params.keywords.max_per_item)
