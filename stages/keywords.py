"""Item metadata -> at most ten keywords per item. Run: thinkrec-stage keywords"""


def keywords() -> str:
    """Summarise item metadata into keywords."""
    from thinkrec import artifacts
    from thinkrec.params import load
    from thinkrec.synthesis.keywords import extract_keywords

    items = artifacts.read_table(artifacts.ITEMS)
    found, stats = extract_keywords(items, max_per_item=load().keywords.max_per_item)
    artifacts.write_table(artifacts.KEYWORDS, found)
    artifacts.write_metrics("keywords", stats)
    return f"{found['keywords'].str.len().mean():.1f} keywords per item for {len(found):,} items"
