"""The answers behind keywords and traces <-> a file to share. Run: thinkrec-stage bundle export answers.jsonl.gz"""

from pathlib import Path
from typing import Annotated, Literal

import typer


def bundle(
    action: Annotated[Literal["export", "import"], typer.Argument(metavar="export|import", help="Which way.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The bundle, such as answers.jsonl.gz.")],
) -> str:
    """Share a teacher's answers, so that others make the same keywords and traces without asking it.

    export: the answers behind the traces of params.yaml (and keywords, if by a teacher).

    import: into the response store; the stages then need no key to make the same again.
    """
    from thinkrec.params import load
    from thinkrec.synthesis.keyword_job import keyword_job
    from thinkrec.synthesis.trace_job import trace_job
    from thinkrec.teacher.bundle import export_bundle, read_bundle
    from thinkrec.teacher.endpoint import store_path

    if action == "import":
        new, same, header = read_bundle(file, store_path())
        return (
            f"{new:,} answers imported, {same:,} were there; they are for teacher.endpoint={header['endpoint']} "
            f"teacher.model={header['model']}"
        )
    params = load()
    by_teacher = params.keywords.source == "teacher"
    count = export_bundle(file, [*([keyword_job(params)] if by_teacher else []), trace_job(params)])
    return f"{count:,} answers of {params.teacher.model} in {file}"
