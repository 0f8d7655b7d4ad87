"""Keywords and traces -> what they would still ask the teacher, and its cost. Run: thinkrec-stage quote"""

from __future__ import annotations


def quote() -> str:
    """Say what the keywords and traces of params.yaml would ask the teacher and cost; send nothing."""
    from stages import keywords, traces
    from thinkrec.params import load
    from thinkrec.teacher.quote import show

    params = load()
    return show([keywords.price(params), traces.price(params)])
