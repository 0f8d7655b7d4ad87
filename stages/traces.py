"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from thinkrec.command import note


def traces() -> str:
    """Have a teacher write reasoning traces, keep what is right."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.traces import trace_job
    from thinkrec.teacher.job import describe_spent, run_job

    params = load()
    synthesis, spent = run_job(trace_job(params), note)
    artifacts.write_table(artifacts.TRACES, synthesis.kept)
    artifacts.write_table(artifacts.REJECTED, synthesis.rejected)
    artifacts.write_text(artifacts.EXAMPLES, synthesis.examples)
    artifacts.write_metrics("traces", synthesis.stats, "*.kept", "train.accuracy_before_hint")
    return f"{synthesis}; {describe_spent(spent, params.teacher)}"
