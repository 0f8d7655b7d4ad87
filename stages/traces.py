"""Sampled interactions -> reasoning traces by a teacher, kept if verified. Run: thinkrec-stage traces"""

from __future__ import annotations

from thinkrec.command import DryRun, Reply, note


def traces(dry_run: DryRun = False) -> str | Reply:
    """Have a teacher write reasoning traces, keep what is right."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.traces import quote_traces, trace_job
    from thinkrec.teacher.job import describe_spent, run_job
    from thinkrec.teacher.quote import describe_quotes

    params = load()
    if dry_run:
        return Reply(**describe_quotes([quote_traces(params)]))
    synthesis, spent = run_job(trace_job(params), note)
    artifacts.write_table(artifacts.TRACES, synthesis.kept)
    artifacts.write_table(artifacts.REJECTED, synthesis.rejected)
    artifacts.write_text(artifacts.EXAMPLES, synthesis.examples)
    artifacts.write_metrics("traces", synthesis.stats, "*.kept", "train.accuracy_before_hint")
    return f"{synthesis}; {describe_spent(spent, params.teacher)}"
