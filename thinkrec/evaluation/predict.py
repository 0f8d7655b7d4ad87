"""Predictions of every model on the same rows, and the reasons that ours gives for some of them.

Shapes: n evaluated rows, u users, e adapters (the global one, then N experts).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from thinkrec.artifacts import BASELINES, SPLITS
from thinkrec.errors import UserError
from thinkrec.evaluation.tables import BEST, EVALUATED, ORACLE, OURS
from thinkrec.experts.fit import Routing
from thinkrec.experts.groups import UserGroups
from thinkrec.experts.routing import centroid_routing, routing_cases
from thinkrec.history import ScoredModel, history_bounds, warm_rows
from thinkrec.lm.mixture import Router
from thinkrec.lm.scoring import score
from thinkrec.lm.workbench import Workbench
from thinkrec.metrics import Floats, log_losses, per_user, sigmoid
from thinkrec.params import EvaluateParams
from thinkrec.reasons.decoding import Decoding, Judge, generate

Rows = NDArray[np.int64]

GLOBAL, CENTROID = f"{OURS}_global", f"{OURS}_centroid"  # the global adapter alone; the paper's rule


def predict(
    bench: Workbench,
    static: Workbench,
    router: Router,
    routing: Routing,
    groups: UserGroups,
    baselines: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    temperature: float,
) -> tuple[pd.DataFrame, list[str]]:
    """Probabilities of every model on all valid and test rows (schema PREDICTIONS), and the models' column names.

    Ours stands first, as the gate stage routed it, then the same on `static` (`bench.static()`). With experts there
    follow the global adapter alone, the paper's rule at `temperature` (left out where that is how ours was routed) and
    the adapter oracle. Then come the columns of `baselines` (schema BASELINES), and the truth where it is known.

    Raises:
        UserError: `baselines` holds other rows than those, or an expert changes no score.
    """
    table, route = bench.interactions, bench.features.state
    rows = np.flatnonzero(table["split"].isin(EVALUATED).to_numpy())
    if not np.array_equal(baselines["row"], rows):
        raise UserError(f"{BASELINES}: its rows are not the valid and test rows; rerun its stage: dvc repro baselines")
    by_rule = centroid_routing(bench.features.user_vectors, groups, temperature)
    known = table.loc[rows, ["split", "user", "item", "label"]].reset_index(drop=True)
    known = known.assign(row=rows, **known_before(table, groups, rows), case=routing_cases(by_rule)[route[rows]])

    def scored(
        view: Workbench, rows: Rows, weights: NDArray[np.float32], route: NDArray[np.integer], name: str
    ) -> Floats:
        logits = score(
            view.model, view.layout, rows, router=router, routing=weights, route=route, progress=f"scoring: {name}"
        )
        return sigmoid(logits)

    # One state for all: rows that share their weights share sequences too, which is twice as fast.
    adapters, everyone = np.eye(1 + len(groups.centroids), dtype=np.float32), np.zeros(len(table), np.int32)
    alone = [scored(bench, rows, adapters[[k]], everyone, f"adapter {k}") for k in range(len(adapters))]
    alone_ne = np.stack(alone, axis=1)
    for k in range(1, len(alone)):
        if len(rows) and np.array_equal(alone[k], alone[0]):
            raise UserError(f"expert_{k}: changes no score, so it learned nothing; train it longer (experts.epochs)")

    def routed(weights: NDArray[np.float32], name: str) -> Floats:
        """Rows that one adapter serves have been scored; the others are now."""
        by_row = weights[route[rows]]
        probability = alone_ne[np.arange(len(rows)), by_row.argmax(axis=1)]
        mixed = by_row.max(axis=1) < 1
        probability[mixed] = scored(bench, rows[mixed], weights, route, name)
        return probability

    ours_static = ScoredModel(OURS, "static").column
    models = {
        OURS: routed(routing.weights, OURS),
        ours_static: scored(static, rows, routing.weights, static.features.state, ours_static),
    }
    if len(adapters) > 1:
        models[GLOBAL] = alone_ne[:, 0]
        states = np.unique(route[rows])
        if not np.array_equal(by_rule[states], routing.weights[states]):
            models[CENTROID] = routed(by_rule, CENTROID)
        user_of_split = known.groupby(["split", "user"], observed=True).ngroup()
        models[ORACLE] = expert_oracle(user_of_split, known["label"], alone_ne)
    models |= {name: baselines[name].to_numpy() for name in baselines.columns.drop("row")}
    if len(truth):
        models[BEST] = truth["probability"].to_numpy()[rows]
    columns = {name: np.asarray(column, np.float32) for name, column in models.items()}
    return known.assign(**columns), list(models)


def known_before(table: pd.DataFrame, groups: UserGroups, rows: Rows) -> dict[str, NDArray[np.generic]]:
    """What slices go by, of valid and test `rows` (n): `warm`, `history`, `popularity` and `group` of PREDICTIONS.

    All of it was known before the row happened: it rests on strictly earlier rows and on train.
    """
    start, end = history_bounds(table["user"].to_numpy(), table["timestamp"].to_numpy())
    item, train = table["item"].to_numpy(), (table["split"] == "train").to_numpy()
    in_train = np.bincount(item[train], minlength=int(item.max(initial=-1)) + 1)
    return {
        "warm": warm_rows(table)[rows],
        "history": (end - start)[rows].astype(np.int32),
        "popularity": in_train[item[rows]].astype(np.int32),
        "group": groups.group[table["user"].to_numpy()[rows]].astype(np.int8),
    }


def expert_oracle(user: ArrayLike, label: ArrayLike, probability_ne: Floats) -> Floats:
    """Each row's probability (n) by the one adapter that ranks its user's rows best, in hindsight.

    `probability_ne` is every adapter's, `user` (n) a number for every user, or user and split. Best is the highest AUC
    of the user; where that ties, or the user has one class only, the lowest log-loss. It has seen the
    labels that it is measured on: the highest UAUC that routing each user to one adapter can have.
    """
    user_n = np.unique(user, return_inverse=True)[1]
    auc_ue = np.stack([per_user(user_n, label, one, ks=(), seed=0).values["uauc"] for one in probability_ne.T], axis=1)
    loss_ue = np.stack([np.bincount(user_n, log_losses(label, one)) for one in probability_ne.T], axis=1)
    best_u = np.lexsort((loss_ue, -np.nan_to_num(auc_ue)), axis=1)[:, 0]
    return probability_ne[np.arange(len(user_n)), best_u[user_n]]


def write_reasons(
    bench: Workbench,
    router: Router,
    routing: Routing,
    predictions: pd.DataFrame,
    traces: pd.DataFrame,
    judge: Judge,
    params: EvaluateParams,
    *,
    seed: int,
) -> pd.DataFrame:
    """Reasons for `params.reasons` test rows (schema REASONS): those with a held-out trace first, then random ones.

    Of `params.candidates` of every sentence the one stays that the `judge` finds best.
    """
    test = predictions[predictions["split"] == SPLITS[-1]].set_index("row")
    teacher = traces.set_index("row")["text"].reindex(test.index).fillna("")
    shuffled = np.random.default_rng(seed).permutation(len(test))
    first = np.argsort(teacher.to_numpy()[shuffled] == "", kind="stable")[: params.reasons]
    chosen = np.sort(shuffled[first])
    rows = test.index.to_numpy()[chosen]
    texts = (
        generate(
            bench.model,
            bench.tokenizer,
            bench.layout,
            rows,
            Decoding.of(params, seed=seed),
            router=router,
            routing=routing.weights,
            route=bench.features.state,
            judge=judge,
            progress="reasons",
        )
        if len(rows)
        else []
    )
    return pd.DataFrame(
        {
            "row": rows,
            "label": test["label"].to_numpy()[chosen],
            "probability": test[OURS].to_numpy()[chosen],
            "reason": texts,
            "teacher": teacher.to_numpy()[chosen],
        }
    )
