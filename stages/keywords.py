"""Item metadata -> at most ten keywords per item. Run: thinkrec-stage keywords"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thinkrec.params import Params
    from thinkrec.synthesis.client import Teacher
    from thinkrec.synthesis.summaries import Summaries


def keywords() -> str:
    """Summarise item metadata into keywords."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.client import open_teacher

    params = load()
    made = ask(params, open_teacher(params.teacher) if params.keywords.source == "teacher" else None)
    artifacts.write_table(artifacts.KEYWORDS, made.keywords)
    artifacts.write_table(artifacts.FALLBACKS, made.fallbacks)
    artifacts.write_metrics("keywords", made.stats)
    by_teacher = f", {made.stats['by_teacher']:,} by the teacher" if "by_teacher" in made.stats else ""
    return f"{made.stats['mean_keywords']:.1f} keywords per item for {made.stats['items']:,} items{by_teacher}"


def ask(params: Params, teacher: Teacher | None) -> Summaries:
    """What this teacher's answers to the stage's questions come to; without one, what is extracted."""
    from thinkrec import artifacts
    from thinkrec.synthesis.summaries import summarise

    return summarise(artifacts.read_table(artifacts.ITEMS), teacher, max_per_item=params.keywords.max_per_item)
