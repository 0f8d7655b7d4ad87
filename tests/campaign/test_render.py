"""The tables' text from hand-made row files: cells, verdicts and claims as worked out by hand."""

import pytest

from thinkrec.campaign.cells import significance, value_cell
from thinkrec.campaign.render import accuracy, checks, claims, joint_leads, merge_lines, ndcg_10, over_seeds, render
from thinkrec.campaign.rows import ROWS
from thinkrec.evaluation.intervals import HEADLINE


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
        "params": {"seed": 7, "experts": {"n": 3}},
        "counts": {"test": {"rows": 7331, "users": {"all": 313, "uauc": 224, "@5": 287}}},
        "lines": lines,
        **more,
    }


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


def spread():
    """Three seeds of ThinkRec, without one of no thinking: a joint lead in UAUC and NDCG@10, no lift."""
    metrics = {"auc": {"mean": 0.77, "deviation": 0.0012}, "ndcg@10": {"mean": 0.8, "deviation": 0.002}}
    ours = {"commit": {7: "7726a8c", 1: "fffffff", 2: "7726a8c"}, "metrics": metrics, "lead": {}}
    leads = {metric: entry(0, -0.03, p=0.001)["lead"] for metric in ("uauc", "ndcg@10")}
    return {"thinkrec": ours, "no_thinking": {**ours, "lead": leads}, "gsasrec": {**ours, "lead": leads}}


def table_rows(text):
    """The cells of all lines of a text's tables."""
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]


def cells(text, title):
    """The cells of the only line of a table that begins with this title."""
    (row,) = [row for row in table_rows(text) if row[0] == title]
    return row


def section(head, *, of=None, dataset="ml-1m"):
    """The part of a page under a head."""
    return render(dataset, of or files(), {}).partition(f"# {head}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(("figure", "word"), [(0.74, "above"), (0.75, "within"), (0.79, "within"), (0.80, "below")])
def test_our_interval_stands_above_below_or_around_a_figure_of_the_paper(figure, word):
    assert value_cell({"value": 0.77, "low": 0.75, "high": 0.79}, figure).endswith(f": {word}")


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.001, 0.02, "ahead"), (0.0, 0.02, ""), (-0.01, 0.0, ""), (-0.02, -0.001, "behind"), (None, None, "")],
)
def test_a_lead_is_significant_if_its_interval_excludes_0(low, high, word):
    assert significance({"low": low, "high": high}) == word


def test_accuracy_has_ours_its_interval_the_papers_figure_and_how_they_stand():
    table = accuracy("ml-1m", merge_lines(files()))
    assert cells(table, "**ThinkRec**") == [
        "**ThinkRec**",
        ".7700 [.7500, .7900]<br>paper .7764: within",
        ".7700 [.7500, .7900]<br>paper .6775: above",
        ".7700 [.7500, .7900]",
        ".7700 [.7500, .7900]",
        "",
        "",
    ]
    assert cells(table, "matrix factorisation")[1] == ".7500 [.7300, .7700]<br>paper .6401: above"
    assert "paper" not in accuracy("synthetic", merge_lines(files()))  # which the paper lacks


def test_a_lead_has_its_interval_a_word_and_a_star_only_if_holm_leaves_it():
    # Of 8 leads, Holm multiplies the two p of .04 by 4: no star. Its interval begins at 0.
    table = accuracy("ml-1m", merge_lines(files()))
    assert cells(table, "matrix factorisation")[5] == "+.0200 [.0000, .0400]"
    assert cells(table, "as TALLRec: text only")[5] == "+.0700 [.0500, .0900]: ahead*"
    assert cells(table, "running rates")[5] == "−.0057 [−.0257, .0143]"


def test_accuracy_leaves_static_lines_and_ablations_to_other_tables_and_ends_with_lines_unknown():
    titles = [row[0] for row in table_rows(accuracy("ml-1m", merge_lines(files())))]
    known = ["**ThinkRec**", "as TALLRec: text only", "matrix factorisation", "running rates"]
    assert titles == ["model", "---", *known, "something_new"]


def test_the_page_says_over_what_it_is_measured_and_what_is_missing():
    page = render("ml-1m", files(), {})
    assert "7,331 interactions of 313 users; UAUC covers 224 of them, @5 287." in page
    missing = [name for name in ROWS if name not in files()]
    assert f"Not run yet: {', '.join(missing)}." in page
    every = files() | {name: file({name: line(0.7, 0.07)}) for name in missing}
    assert "ot run yet:" not in render("ml-1m", every, {})


def with_new_items(*names):
    """Row files that count new items, and of these lines also measured them."""
    more = files()
    more["thinkrec"]["counts"]["test"]["new_items"] = {"rows": 1234, "users": 250}
    for file in more.values():
        for name, of_line in file["lines"].items():
            if name in names:
                lead = {} if name == "thinkrec" else {"lead": 0.2, "p": 0.0002}
                of_line["test"]["new_items"] = {metric: entry(0.76, **lead) for metric in ("auc", "uauc")}
    return more


def test_new_items_have_a_table_of_all_lines_and_those_not_measured_say_so():
    part = section("New items", of=with_new_items("thinkrec", "mf", "mf_static"), dataset="synthetic-new")
    assert "1,234 interactions of 250 users" in part
    value, lead = ".7600 [.7400, .7800]", "+.2000 [.1800, .2200]: ahead*"
    assert cells(part, "**ThinkRec**") == ["**ThinkRec**", value, value, "", ""]
    assert cells(part, "matrix factorisation") == ["matrix factorisation", value, value, lead, lead]
    assert cells(part, "no thinking") == ["no thinking", "–", "–", "", ""]  # its file is older
    assert [row[0] for row in table_rows(part)][2:] == [
        *("**ThinkRec**", "no thinking", "as TALLRec: text only", "matrix factorisation", "running rates")
    ]


def test_new_items_too_few_to_be_measured_are_counted_and_older_files_have_no_such_section():
    assert section("New items", of=with_new_items()).endswith("too few to be measured, or of one class.\n")
    assert "New items" not in render("ml-1m", files(), {})


@pytest.mark.parametrize(("n", "paper"), [(3, "<br>paper +.0289"), (5, "")])
def test_experts_have_the_papers_leads_only_if_ours_are_as_many(n, paper):
    more = files() | {"experts_2": file({"experts_2": line(0.76, 0.01)})}
    more["thinkrec"]["params"] = {"experts": {"n": n}}
    part = section("Number of experts", of=more)
    assert cells(part, "2 experts")[6] == f"+.0100 [−.0100, .0300]{paper}"
    assert cells(part, "**ThinkRec**")[5:] == ["", ""]


def test_measures_by_language_models_are_shown_where_a_line_has_one():
    more = files()
    assert "BERTScore" not in section("Reasons", dataset="synthetic")
    more["tallrec"]["lines"]["tallrec"]["reasons"]["bertscore"] = 0.71
    column = [row[5] for row in table_rows(section("Reasons", of=more, dataset="synthetic"))]
    assert column == ["BERTScore", "---", "–", ".7100"]


def test_over_seeds_a_cell_has_the_mean_and_the_deviation():
    assert cells(over_seeds(spread()), "no thinking") == ["no thinking", "3", ".7700 ± .0012", ".8000 ± .0020"]
    world = spread()
    world["thinkrec"]["metrics"] = {**world["thinkrec"]["metrics"], "possible_lift": {"mean": 0.9, "deviation": 0.01}}
    assert cells(over_seeds(world), "**ThinkRec**")[-1] == "90.0 % ± 1.0 %"
    assert cells(over_seeds(world), "no thinking")[-1] == "–"
    assert over_seeds({}) == joint_leads({}) == ""


def test_joint_leads_have_stars_over_the_table():
    table, lead = joint_leads(spread()), "−.0300 [−.0500, −.0100]: behind*"
    assert "ThinkRec**" not in table
    assert cells(table, "no thinking") == ["no thinking", "3", "", lead, "", lead, ""]
    # Of 10 leads, Holm multiplies the smallest p by 10; of 15, by 15.
    many = spread()
    for name in ("no_thinking", "gsasrec"):
        many[name]["lead"] = dict.fromkeys(HEADLINE, entry(0, -0.03, p=0.004)["lead"])
    assert "*" in joint_leads(many)
    assert "*" not in joint_leads(many | {"neither": many["no_thinking"]})


def test_ndcg_at_10_is_compared_with_the_best_baseline():
    lines = merge_lines(files())
    assert ndcg_10(lines, {}) == ""  # not measured in older files
    values = {"thinkrec": 0.84, "mf": 0.7, "gsasrec": 0.8, "best": 0.99, "no_thinking": 0.9}
    lines |= {name: {"test": {"ndcg@10": entry(value, 0.84 - value)}} for name, value in values.items()}
    assert ndcg_10(lines, {}) == (
        "NDCG@10: ThinkRec .8400, the best baseline (gSASRec) .8000: +5.0 %, lead +.0400 [.0200, .0600]: ahead. "
        "A summary of the paper claims +12.7 % on average."
    )
    assert "; over 3 seeds −3.8 %, joint lead −.0300 [−.0500, −.0100]: behind." in ndcg_10(lines, spread())


def checked_files(truth=None, **evaluate):
    """Row files with checked claims, but none of no_experts; as in older ones, shares of the history are missing."""
    claimed = {"reasons": 200, "claims": 500, "wholly_true_share": {"literally": 0.4, "by_meaning": 0.9}}
    moved = {"cited": 0.13, "control": 0.09, "difference": 0.04, "low": 0.01, "high": 0.07}
    reasons = {
        "claims": {"ours": claimed, "teacher": {**claimed, "claims": 900}},
        "truth": truth or {},
        "interventions": {"flip": {**moved, "low": -0.01}, "mask": moved},
    }
    return {
        name: {"params": {"evaluate": evaluate}, "lines": {name: {"reasons": written}}}
        for name, written in {"thinkrec": reasons, "no_experts": {"rows": 300}}.items()
    }


def test_claims_are_counted_and_interventions_have_their_difference():
    table = checks(checked_files())
    shares = [".4000, .9000", "–", "–", "–", "–", "–"]
    moved = [".1300, .0900<br>+.0400 [−.0100, .0700]", ".1300, .0900<br>+.0400 [.0100, .0700]: ahead"]
    assert cells(table, "**ThinkRec**") == ["**ThinkRec**", "1", "2.5", *shares, *moved]
    assert cells(table, "*the teacher*") == ["*the teacher*", "", "4.5", *shares, "", ""]
    assert "no experts" not in table
    assert checks({"no_experts": checked_files()["no_experts"]}) == ""
    assert cells(checks(checked_files(candidates=16)), "**ThinkRec**")[1] == "16"


def test_the_papers_claims_are_counted_by_what_our_interval_says_and_have_both_leads():
    # ML1M: 7 models by 2 metrics; Book: 3 by 3; experts: 2; METEOR: 1. Ours: mf in 2 around 0,
    # tallrec behind ThinkRec in 2 and METEOR, no thinking in 3.
    summary, table = claims("ml-1m", files(), {})
    assert summary == (
        "The paper says 26 times that ThinkRec is better than a line of these tables. Here it has a significant "
        "lead (95 % CI) in 6 of these and is significantly behind in 0; in 2 the interval includes 0, and 18 are "
        "not run yet."
    )
    rows = table_rows(table)
    assert ["matrix factorisation", "AUC", "+.1363 (ML1M)", "+.0200 [.0000, .0400]", "1"] in rows
    assert ["no thinking", "MAP@5", "+.0429 (Book)", "+.0600 [.0400, .0800]: ahead*", "1"] in rows
    assert ["2 experts", "UAUC", "+.0289 (Book, new split)", "not run yet", ""] in rows
    assert ["as TALLRec: text only", "METEOR", "+.0058 (ML1M)", "+.1000 [.0800, .1200]: ahead*", "1"] in rows


def test_a_claim_is_held_against_the_joint_lead_where_there_is_one():
    summary, table = claims("ml-1m", files(), spread())
    assert ["no thinking", "UAUC", "+.1013 (Book)", "−.0300 [−.0500, −.0100]: behind*", "3"] in table_rows(table)
    assert ["no thinking", "MAP@5", "+.0429 (Book)", "+.0600 [.0400, .0800]: ahead*", "1"] in table_rows(table)
    assert "a significant lead (95 % CI) in 5 of these and is significantly behind in 2" in summary


def test_nothing_is_claimed_where_the_paper_does_not_lead_on_every_dataset():
    summary, table = claims("synthetic", files(), {})
    assert summary.startswith("The paper says 25 times")
    assert "| SASRec | AUC | at least +.0771 (all of its datasets) | not run yet |  |" in table
    assert "| SASRec | UAUC |" not in table
