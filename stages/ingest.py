"""Raw ratings and item metadata -> interactions, items, users, quarantine, a picture. Run: thinkrec-stage ingest"""


def ingest() -> str:
    """Read raw ratings and metadata, label and split them by time."""
    from thinkrec import artifacts
    from thinkrec.ingest import overview as report
    from thinkrec.ingest.dataset import ingest as read
    from thinkrec.params import load

    found = read(load().dataset)
    for path, frame in found.tables().items():
        artifacts.write_table(path, frame)
    artifacts.write_metrics("ingest", found.stats)
    report.draw(artifacts.PLOTS / "dataset.png", found.interactions, found.days, found.windows)
    sizes = " / ".join(f"{count:,}" for count in found.interactions["split"].value_counts().reindex(artifacts.SPLITS))
    unnamed = f"{found.stats['items_without_metadata']:,} of {len(found.items):,} items without a title"
    return f"{sizes} interactions (train / valid / test), {len(found.quarantine):,} rows in quarantine, {unnamed}"
