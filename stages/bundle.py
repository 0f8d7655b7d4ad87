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
    from stages import keywords, traces
    from thinkrec.params import load
    from thinkrec.teacher.bundle import read_bundle, write_bundle
    from thinkrec.teacher.client import open_replay, place, store_path

    if action == "import":
        new, same, of = read_bundle(file, store_path())
        return (
            f"{new:,} answers imported, {same:,} were there; they are for teacher.endpoint={of['endpoint']} "
            f"teacher.model={of['model']}"
        )
    params = load()
    keys: set[str] = set()
    teacher = open_replay(params.teacher_settings, lambda key, *_: keys.add(key))
    if params.keywords.source == "teacher":
        keywords.ask(params, teacher)
    traces.ask(params, teacher)
    write_bundle(file, store_path(), keys, endpoint=place(params.teacher.endpoint), model=params.teacher.model)
    return f"{len(keys):,} answers of {params.teacher.model} in {file}"
