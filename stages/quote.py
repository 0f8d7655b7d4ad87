"""Keywords and traces -> what they would still ask the teacher, and its cost. Run: thinkrec-stage quote"""

from __future__ import annotations


def quote() -> str:
    """Say what the keywords and traces of params.yaml would ask the teacher and cost; send nothing."""
    from thinkrec.params import load
    from thinkrec.synthesis.keyword_job import quote_keywords
    from thinkrec.synthesis.trace_job import quote_traces
    from thinkrec.teacher.quote import show_quotes

    params = load()
    return show_quotes([quote_keywords(params), quote_traces(params)])
