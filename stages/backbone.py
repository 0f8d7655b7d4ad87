"""The language model: built here (`tiny`), or a pinned reference. Run: thinkrec-stage backbone"""


def backbone() -> str:
    """Build the tiny language model, or pin another."""
    from thinkrec import artifacts
    from thinkrec.lm import backbone as lm
    from thinkrec.lm.tiny import build_tiny
    from thinkrec.params import load
    from thinkrec.text.corpus import training_texts

    params = load()
    name, load_in_4bit = params.backbone.name, params.backbone.load_in_4bit
    if name != lm.TINY:
        with artifacts.atomic(artifacts.BACKBONE) as partial:
            artifacts.write_json(partial / lm.REFERENCE, lm.pin(name, load_in_4bit=load_in_4bit))
            model, _ = lm.open_backbone(partial)
        metrics = {"parameters": model.num_parameters()}
    else:
        texts = training_texts(
            artifacts.read_table(artifacts.INTERACTIONS),
            artifacts.read_table(artifacts.ITEMS),
            artifacts.read_table(artifacts.KEYWORDS),
            artifacts.read_table(artifacts.TRACES),
            params.prompt,
        )
        with artifacts.atomic(artifacts.BACKBONE) as partial:
            model, tokenizer, metrics = build_tiny(texts, params.backbone, seed=params.seed)
            lm.save_model(model, tokenizer, partial)
    artifacts.write_metrics("backbone", metrics)
    return f"{name}, {metrics['parameters']:,} parameters"
