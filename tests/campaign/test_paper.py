"""The paper's figures as data: checked against METHOD §5 by differences worked out by hand."""

import pytest

from thinkrec.campaign import paper

CLOSE = pytest.approx


def test_leads_are_thinkrecs_figure_minus_the_others():
    leads = paper.leads_on("ml-1m", paper.ACCURACY)
    assert len(leads) == 7 and "thinkrec" not in leads
    assert leads["collm"] == CLOSE({"auc": 0.0623, "uauc": 0.0103})
    assert leads["gsasrec"] == CLOSE({"auc": 0.0721, "uauc": 0.0085})
    assert paper.leads_on("ml-1m", paper.REASONS) == {"tallrec": CLOSE({"meteor": 0.0058, "bleurt": 0.0497})}
    assert paper.leads(paper.ABLATION)["no_thinking"] == CLOSE({"uauc": 0.1013, "ndcg@5": 0.0574, "map@5": 0.0429})
    assert paper.leads(paper.EXPERTS) == {"no_experts": CLOSE({"uauc": 0.0571}), "experts_2": CLOSE({"uauc": 0.0289})}


def test_a_dataset_that_the_paper_lacks_gets_the_smallest_lead_of_its_three():
    leads = paper.leads_on("synthetic", paper.ACCURACY)
    assert leads["mf"] == CLOSE({"auc": 0.1117, "uauc": 0.0178})  # of Yelp, and of Book
    assert leads["sasrec"]["uauc"] == CLOSE(-0.0031)  # on Yelp SASRec is better: no claim
    assert [name for name, row in leads.items() if min(row.values()) < 0] == ["sasrec"]
    assert paper.leads_on("synthetic", paper.REASONS)["tallrec"]["meteor"] == CLOSE(0.0058)
