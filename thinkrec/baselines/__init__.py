"""Ordinary recommenders and plain statistics, scored on the same rows as the language model."""

# Every baseline's name for people.
TITLES = {
    "gsasrec": "gSASRec",
    "sasrec": "SASRec",
    "lightgcn": "LightGCN",
    "mf": "matrix factorisation",
    "logistic_slots": "logistic regression on what our slots are told",
    "logistic_kernels": "the same without the feature model's affinity",
    "logistic_regression": "logistic regression",
    "boosted_trees": "boosted trees",
    "running_rates": "running rates",
    "item_like_rate": "item like-rate",
}
