"""`thinkrec-stage`, and `python -m stages`: every stage of the pipeline as a command.

Stages import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import typer

from stages.backbone import backbone
from stages.baselines import baselines
from stages.evaluate import evaluate
from stages.experts import experts
from stages.features import features
from stages.gate import gate
from stages.ingest import ingest
from stages.keywords import keywords
from stages.report import report
from stages.sft import sft
from stages.traces import traces
from thinkrec.command import command

PIPELINE = (ingest, keywords, features, baselines, traces, backbone, sft, experts, gate, evaluate, report)
SHARED = (sft, experts, gate, evaluate)  # several processes may do their work (run.processes)

app = typer.Typer(
    name="thinkrec-stage",
    help="Run one stage of the ThinkRec pipeline, from the project's root, on the artefacts of those before it.\n\n"
    "`dvc repro` runs them all, each only where something it depends on has changed. Parameters are in params.yaml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for work in PIPELINE:
    app.command()(command(work, stage=True, shared=work in SHARED))

if __name__ == "__main__":
    app()
