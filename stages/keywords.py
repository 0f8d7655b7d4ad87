"""Item metadata -> at most ten keywords per item. Run: thinkrec-stage keywords"""

from __future__ import annotations

from thinkrec.command import note


def keywords() -> str:
    """Summarise item metadata into keywords."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.summaries import make_keywords
    from thinkrec.teacher.job import describe_spent

    params = load()
    summaries, spent = make_keywords(params, note)
    artifacts.write_table(artifacts.KEYWORDS, summaries.keywords)
    artifacts.write_table(artifacts.FALLBACKS, summaries.fallbacks)
    artifacts.write_metrics("keywords", summaries.stats)
    return str(summaries) if spent is None else f"{summaries}; {describe_spent(spent, params.teacher)}"
