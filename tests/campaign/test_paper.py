"""The paper's figures as data: checked against METHOD §5 by differences worked out by hand."""

from __future__ import annotations

import pytest

from thinkrec.campaign import paper

CLOSE = pytest.approx


def test_every_dataset_has_the_same_eight_models_and_both_metrics() -> None:
    for figures in paper.ACCURACY.values():
        assert set(figures) == set(paper.ACCURACY["ML1M"])
        assert len(figures) == 8
        assert all(set(row) == {"auc", "uauc"} for row in figures.values())


def test_leads_are_thinkrecs_figure_minus_the_others() -> None:
    leads = paper.accuracy_leads("ml-1m")
    assert "thinkrec" not in leads
    assert leads["collm"] == CLOSE({"auc": 0.0623, "uauc": 0.0103})
    assert leads["gsasrec"] == CLOSE({"auc": 0.0721, "uauc": 0.0085})
    assert paper.leads(paper.ABLATION)["no_thinking"] == CLOSE({"uauc": 0.1013, "ndcg@5": 0.0574, "map@5": 0.0429})
    assert paper.leads(paper.EXPERTS) == {"no_experts": CLOSE({"uauc": 0.0571}), "experts_2": CLOSE({"uauc": 0.0289})}


def test_a_dataset_that_the_paper_lacks_gets_the_smallest_lead_of_its_three() -> None:
    leads = paper.accuracy_leads("synthetic")
    assert leads["mf"] == CLOSE({"auc": 0.1117, "uauc": 0.0178})  # of Yelp, and of Book
    assert leads["sasrec"]["uauc"] == CLOSE(-0.0031)  # on Yelp SASRec is better: no claim
    assert [name for name, row in leads.items() if min(row.values()) < 0] == ["sasrec"]


def test_reasons_are_compared_in_meteor_alone() -> None:
    assert paper.reason_leads("ml-1m") == {"tallrec": CLOSE({"meteor": 0.0058})}
    assert paper.reason_leads("synthetic") == {"tallrec": CLOSE({"meteor": 0.0058})}
