"""Raw ratings and item metadata -> interactions, items, users, quarantine, a picture. Run: thinkrec-stage ingest"""


def ingest() -> str:
    """Read raw ratings and metadata, label and split them by time."""
    from thinkrec import artifacts
    from thinkrec.ingest import overview as report
    from thinkrec.ingest.dataset import ingest as read
    from thinkrec.params import load
    from thinkrec.provenance import dataset_parameters, write_provenance

    params = load().dataset
    ingested = read(params)
    for path, frame in ingested.tables().items():
        artifacts.write_table(path, frame)
    write_provenance(artifacts.INTERACTIONS.parent, dataset_parameters(params))
    headlines = ("interactions", "users", "items", "splits.*.positive_share")
    artifacts.write_metrics("ingest", ingested.stats, *headlines)
    report.draw(artifacts.PLOTS / "dataset.png", ingested.interactions, ingested.days, ingested.windows)
    sizes = " / ".join(
        f"{count:,}" for count in ingested.interactions["split"].value_counts().reindex(artifacts.SPLITS)
    )
    unnamed = f"{ingested.stats['items_without_metadata']:,} of {len(ingested.items):,} items without a title"
    return f"{sizes} interactions (train / valid / test), {len(ingested.quarantine):,} rows in quarantine, {unnamed}"
