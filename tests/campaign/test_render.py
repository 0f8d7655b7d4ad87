"""The page's text from hand-made row files: cells, verdicts and claims as worked out by hand."""

import pytest

from tests.project import ROOT
from thinkrec.campaign import paper
from thinkrec.campaign.render import page_path, render, write_page
from thinkrec.campaign.rows import ROWS
from thinkrec.campaign.words import lead_cell, value_cell
from thinkrec.errors import UserError
from thinkrec.ranking.page import CATALOGUE, write_catalogue

CLOSE = pytest.approx


def entry(value, lead=None, *, p=0.5):
    """A figure with its interval, and ThinkRec's lead with one, each .02 to both sides."""
    figure = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return figure if lead is None else figure | {"lead": entry(lead) | {"p": p}}


def line(auc, lead=None, *, p=0.5, meteor=None):
    """A line with the same figure in every metric, and reasons if it has a METEOR."""
    test = {metric: entry(auc, lead, p=p) for metric in ("auc", "uauc", "ndcg@5", "map@5")}
    written = {"rouge_l": 0.5439, "bleu": 0.2352, "accuracy": 0.76, "agreement": 1.0}
    reasons = {"reasons": {"with_teacher": 189, "meteor_exact_stem": meteor, **written}} if meteor else {}
    return {"test": test, **reasons}


def file(lines, **more):
    return {
        "commit": "7726a8c",
        "experiment": "aaa",
        "compared_with": "aaa",
        "params": {"seed": 7, "experts": {"n": 3}, "evaluate": {"candidates": 16}},
        "counts": {"test": {"rows": 7331, "users": {"all": 313, "uauc": 224, "@5": 287}}},
        "lines": lines,
        **more,
    }


@pytest.fixture
def files():
    base = {
        "thinkrec": line(0.77, meteor=entry(0.5)),
        "mf": line(0.75, 0.02, p=0.04),
        "mf_static": line(0.64, 0.13, p=0.0002),
        "running_rates": line(0.7757, -0.0057, p=0.6),
        "something_new": line(0.5, 0.27, p=0.0002),
    }
    return {
        "thinkrec": file(base),
        "no_thinking": file({"no_thinking": line(0.71, 0.06, p=0.0002)}, commit="1234567+", compared_with="older"),
        "tallrec": file({"tallrec": line(0.70, 0.07, p=0.0002, meteor=entry(0.4, 0.1, p=0.0002))}),
    }


@pytest.fixture
def spread():
    """Three seeds of ThinkRec, no thinking and MF: joint leads in UAUC and NDCG@10, the lift of ThinkRec alone."""
    metrics = {"auc": {"mean": 0.77, "std": 0.0012}, "ndcg@10": {"mean": 0.8, "std": 0.002}}
    commit = {7: "7726a8c", 1: "fffffff", 2: "7726a8c"}
    leads = {metric: entry(0, -0.03, p=0.001)["lead"] for metric in ("uauc", "ndcg@10")}
    other = {"commit": commit, "metrics": metrics, "lead": leads}
    ours = {"commit": commit, "metrics": metrics | {"possible_lift": {"mean": 0.9, "std": 0.01}}, "lead": {}}
    return {"thinkrec": ours, "no_thinking": other, "mf": other}


def table_rows(text):
    """The cells of all lines of a text's tables."""
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]


def cells(text, title, first=0):
    """The cells of the only line of the tables that begins with this title, from the `first` on."""
    (row,) = [row for row in table_rows(text) if row[0] == title]
    return row[first:]


def section(head, files, spread=None, dataset="ml-1m"):
    """The part of a page under a head."""
    return render(dataset, files, spread or {}).partition(f"# {head}\n")[2].partition("\n#")[0]


def test_committed_pages_are_what_the_committed_files_render(tmp_path, monkeypatch):
    (tmp_path / "tables").symlink_to(ROOT / "tables")
    monkeypatch.chdir(tmp_path)
    datasets = {folder.name for folder in (ROOT / "tables").iterdir()}
    assert {"synthetic", "ml-1m"} <= datasets
    for dataset in datasets:
        write_page(dataset)
        assert page_path(dataset).read_bytes() == (ROOT / page_path(dataset)).read_bytes()
    write_catalogue()
    assert CATALOGUE.read_bytes() == (ROOT / CATALOGUE).read_bytes()


def test_the_page_of_full_rankings_names_the_datasets_that_have_none_and_refuses_another_datasets(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_catalogue()
    assert not CATALOGUE.exists()  # without any file
    for dataset in ("synthetic", "ml-1m"):
        (tmp_path / "tables" / dataset).mkdir(parents=True)
    file = (ROOT / "tables" / "synthetic" / "ranking.json").read_bytes()
    (tmp_path / "tables" / "synthetic" / "ranking.json").write_bytes(file)
    write_catalogue()
    assert "Not run yet: ml-1m." in CATALOGUE.read_text(encoding="utf-8")
    (tmp_path / "tables" / "ml-1m" / "ranking.json").write_bytes(file)
    with pytest.raises(UserError, match=r"ml-1m/ranking\.json: no full ranking of ml-1m"):
        write_catalogue()
    (tmp_path / "tables" / "ml-1m" / "ranking.json").write_text('{"dataset": "ml-1m"}', encoding="utf-8")
    with pytest.raises(UserError, match=r"no full ranking of ml-1m, KeyError"):
        write_catalogue()


@pytest.mark.parametrize(("figure", "word"), [(0.74, "above"), (0.75, "within"), (0.79, "within"), (0.80, "below")])
def test_our_interval_stands_above_below_or_around_a_figure_of_the_paper(figure, word):
    assert value_cell({"value": 0.77, "low": 0.75, "high": 0.79}, figure).endswith(f": {word}")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.001, 0.02, ": ahead"),
        (0.0, 0.02, "]"),
        (-0.01, 0.0, "]"),
        (-0.02, -0.001, ": behind"),
        (None, None, "[–, –]"),
    ],
)
def test_a_lead_is_significant_if_its_interval_excludes_0(low, high, word):
    assert lead_cell({"value": 0.01, "low": low, "high": high}).endswith(word)


def test_accuracy_has_ours_the_papers_figure_and_leads_with_a_star_only_if_holm_leaves_it(files):
    part = section("Accuracy", files)
    ours = ".7700 [.7500, .7900]"
    assert cells(part, "**ThinkRec**", 1) == [
        *(f"{ours}<br>paper .7764: within", f"{ours}<br>paper .6775: above", ours, ours, "", "")
    ]
    # Of 8 leads, Holm multiplies the two p of .04 by 4: no star. Its interval begins at 0.
    assert cells(part, "matrix factorisation", 5) == ["+.0200 [.0000, .0400]"] * 2
    assert cells(part, "as TALLRec: text only", 5) == ["+.0700 [.0500, .0900]: ahead*"] * 2
    assert cells(part, "running rates", 5) == ["−.0057 [−.0257, .0143]"] * 2
    # Static lines and ablations stand in other tables; a line that none knows comes last.
    known = ["**ThinkRec**", "as TALLRec: text only", "matrix factorisation", "running rates"]
    assert [row[0] for row in table_rows(part)] == ["model", "---", *known, "something_new"]
    assert [row[0] for row in table_rows(section("Static protocol", files))][2:] == ["matrix factorisation"]
    assert "<br>paper" not in section("Accuracy", files, dataset="synthetic")  # which the paper lacks


def test_the_page_says_over_what_it_is_measured_what_is_missing_and_which_code_ran(files, spread):
    page = render("ml-1m", files, spread)
    assert "7,331 interactions of 313 users; UAUC covers 224 of them, @5 287." in page
    missing = [name for name in ROWS if name not in files]
    assert f"Not run yet: {', '.join(missing)}." in page
    assert page.endswith(
        "- `7726a8c`: thinkrec (seeds 7, 2), no_thinking (seeds 7, 2), tallrec\n"
        "- `fffffff`: thinkrec (seeds 1), no_thinking (seeds 1)\n- `1234567+`: no_thinking\n"
        "- compared with an earlier run of thinkrec: no_thinking\n"
    )
    assert "ot run yet:" not in render("ml-1m", files | {name: file({name: line(0.7, 0.07)}) for name in missing}, {})


def test_new_items_are_counted_and_have_a_table_of_all_lines_where_they_were_measured(files):
    assert "New items" not in render("ml-1m", files, {})  # files are older
    files["thinkrec"]["counts"]["test"]["new_items"] = {"rows": 1234, "users": 250}
    assert section("New items", files).endswith("too few to be measured, or of one class.\n")
    for name in ("thinkrec", "mf", "mf_static"):
        lead = {} if name == "thinkrec" else {"lead": 0.2, "p": 0.0002}
        measured = {metric: entry(0.76, **lead) for metric in ("auc", "uauc")}
        files["thinkrec"]["lines"][name]["test"]["new_items"] = measured
    part = section("New items", files)
    assert "1,234 interactions of 250 users" in part
    value, lead = ".7600 [.7400, .7800]", "+.2000 [.1800, .2200]: ahead*"
    assert table_rows(part)[2:] == [
        ["**ThinkRec**", value, value, "", ""],
        ["no thinking", "–", "–", "", ""],
        ["as TALLRec: text only", "–", "–", "", ""],
        ["matrix factorisation", value, value, lead, lead],
        ["running rates", "–", "–", "", ""],
    ]


@pytest.mark.parametrize(("n", "of_paper"), [(3, "<br>paper +.0289"), (5, "")])
def test_experts_have_the_papers_leads_only_if_ours_are_as_many(n, of_paper, files):
    files["experts_2"] = file({"experts_2": line(0.76, 0.01)})
    files["thinkrec"]["params"]["experts"]["n"] = n
    part = section("Number of experts", files)
    assert cells(part, "2 experts", 6) == [f"+.0100 [−.0100, .0300]{of_paper}"]
    assert cells(part, "**ThinkRec**", 5) == ["", ""]


def test_measures_by_language_models_are_shown_where_a_line_has_one(files):
    assert "BERTScore" not in section("Reasons", files, dataset="synthetic")
    files["tallrec"]["lines"]["tallrec"]["reasons"]["bertscore"] = 0.71
    column = [row[5] for row in table_rows(section("Reasons", files, dataset="synthetic"))]
    assert column == ["BERTScore", "---", "–", ".7100"]


def test_over_seeds_a_cell_has_the_mean_and_the_deviation(files, spread):
    means = [["3", ".7700 ± .0012", ".8000 ± .0020", lift] for lift in ("90.0 % ± 1.0 %", "–")]
    table = table_rows(section("Over seeds", files, spread))[2:4]
    assert table == [["**ThinkRec**", *means[0]], ["no thinking", *means[1]]]
    assert "Over seeds" not in render("ml-1m", files, {})


def test_ndcg_10_is_that_of_the_best_baseline_with_the_share_over_seeds(files, spread):
    values = {"thinkrec": 0.84, "mf": 0.8, "running_rates": 0.7}
    for name, value in values.items():
        files["thinkrec"]["lines"][name]["test"]["ndcg@10"] = entry(value, 0.84 - value)
    start = (
        "NDCG@10: ThinkRec .8400, the best baseline (matrix factorisation) .8000: +5.0 %, "
        "lead +.0400 [.0200, .0600]: ahead"
    )
    assert f"{start}. A summary of the paper claims +12.7 % on average." in render("ml-1m", files, {})
    joint = "; over 3 seeds −3.8 %, joint lead −.0300 [−.0500, −.0100]: behind. A summary"
    assert f"{start}{joint}" in render("ml-1m", files, spread)


def test_claims_are_counted_and_interventions_have_their_difference(files):
    claimed = {"reasons": 200, "claims": 500, "wholly_true_share": {"literally": 0.4, "by_meaning": 0.9}}
    moved = {"cited": 0.13, "control": 0.09, "difference": 0.04, "low": 0.01, "high": 0.07}
    files["thinkrec"]["lines"]["thinkrec"]["reasons"] |= {
        "claims": {"ours": claimed, "teacher": {**claimed, "claims": 900}},
        "truth": {},
        "interventions": {"flip": {**moved, "low": -0.01}, "mask": moved},
    }
    checked = section("Reasons", files).partition("What the reasons claim")[2]
    shares = [".4000, .9000", "–", "–", "–", "–", "–"]
    moved = [".1300, .0900<br>+.0400 [−.0100, .0700]", ".1300, .0900<br>+.0400 [.0100, .0700]: ahead"]
    assert table_rows(checked)[2:] == [
        ["*the teacher*", "", "4.5", *shares, "", ""],
        ["**ThinkRec**", "16", "2.5", *shares, *moved],
    ]


def test_the_papers_claims_are_counted_by_what_our_interval_says_and_have_both_leads(files, spread):
    # ML1M: 7 models by 2 metrics; Book: 3 by 3; experts: 2; METEOR: 1. Ours: mf in 2 around 0,
    # tallrec behind ThinkRec in 2 and METEOR, no thinking in 3.
    part = section("The paper's claims", files)
    assert (
        "The paper says 26 times that ThinkRec is better than a line of these tables. Here it has a significant "
        "lead (95 % CI) in 6 of these and is significantly behind in 0; in 2 the interval includes 0, and 18 are "
        "not run yet."
    ) in part
    rows = table_rows(part)
    assert ["matrix factorisation", "AUC", "+.1363 (ML1M)", "+.0200 [.0000, .0400]", "1"] in rows
    assert ["2 experts", "UAUC", "+.0289 (Book, new split)", "not run yet", ""] in rows
    assert ["as TALLRec: text only", "METEOR", "+.0058 (ML1M)", "+.1000 [.0800, .1200]: ahead*", "1"] in rows
    # Over seeds, the joint lead counts where there is one.
    part = section("The paper's claims", files, spread)
    assert "in 5 of these and is significantly behind in 2" in part
    rows = table_rows(part)
    assert ["no thinking", "UAUC", "+.1013 (Book)", "−.0300 [−.0500, −.0100]: behind*", "3"] in rows
    assert ["no thinking", "MAP@5", "+.0429 (Book)", "+.0600 [.0400, .0800]: ahead*", "1"] in rows


def test_nothing_is_claimed_where_the_paper_does_not_lead_on_every_dataset(files):
    part = section("The paper's claims", files, dataset="synthetic")
    assert "The paper says 25 times" in part
    assert "| SASRec | AUC | at least +.0771 (all of its datasets) | not run yet |  |" in part
    assert "| SASRec | UAUC |" not in part


def test_the_papers_leads_are_thinkrecs_figure_minus_the_others_the_smallest_where_it_lacks_the_dataset():
    leads = paper.leads(paper.ACCURACY, "ml-1m")
    assert len(leads) == 7 * 2 and leads["collm", "auc"] == CLOSE(0.0623) and leads["gsasrec", "uauc"] == CLOSE(0.0085)
    assert paper.leads(paper.REASONS, "ml-1m") == {
        ("tallrec", "meteor"): CLOSE(0.0058),
        ("tallrec", "bleurt"): CLOSE(0.0497),
    }
    assert paper.leads(paper.ABLATION)["no_thinking", "map@5"] == CLOSE(0.0429)
    assert paper.leads(paper.EXPERTS) == {("no_experts", "uauc"): CLOSE(0.0571), ("experts_2", "uauc"): CLOSE(0.0289)}
    leads = paper.leads(paper.ACCURACY, "synthetic")
    assert (leads["mf", "auc"], leads["mf", "uauc"]) == (CLOSE(0.1117), CLOSE(0.0178))  # of Yelp, and of Book
    assert leads["sasrec", "uauc"] == CLOSE(-0.0031)  # on Yelp SASRec is better
