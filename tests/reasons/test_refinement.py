"""Refinement: what answers are worth, and that the model learns to write those that are worth more."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.builders import interactions, layout_of, loaded_model, recommender, tokenizer
from tests.claims.rows import checker_of, item
from tests.project import params_with, run_params
from tests.reasons.test_decoding import add_to_logits
from thinkrec.claims.answers import parse_verdict
from thinkrec.lm.sft import train_only
from thinkrec.lm.trainer import resumable
from thinkrec.params import RefineParams
from thinkrec.reasons import refinement
from thinkrec.reasons.decoding import Answer, Decoding, sample_answers, write_answers
from thinkrec.reasons.refinement import refine, reward
from thinkrec.shown import ShownRow
from thinkrec.text.vocabulary import VERDICTS

ROW = ShownRow(
    history=[
        item("Night Ferry", "war", "slow", liked=True),
        item("Red Mill", "war", liked=True),
        item("Lost Lake", "comic", liked=False),
    ],
    target=item("Iron Gate", "war", "rain"),
)
GOOD = 'Yes. They liked "Night Ferry": war. This is "Iron Gate": war. It still fits.'


def worth(text, *, finished=True):
    check = checker_of(ROW, keywords=["space"]).check(0, text)
    return reward(check, Answer(text=text, tokens=[], ends=[], finished=finished))


def test_an_answer_is_worth_most_if_it_is_true_and_an_argument():
    best = worth(GOOD)
    changes = {
        "unconnected": ('Gate": war', 'Gate": rain'),
        "untrue": ('Ferry": war', 'Ferry": space'),
        "said twice": ("They", 'They liked "Night Ferry": war; they'),
        "against itself": ("still fits", "does not fit"),
        "of a title nothing is said": ("They", 'They liked "Red Mill"; they'),
    }
    worse = {name: worth(GOOD.replace(*change)) for name, change in changes.items()}
    assert best < 2.0 and all(0.0 < value < best - 0.4 for value in worse.values())
    assert min(worse, key=worse.get) == "untrue"
    assert worth(GOOD.replace("They", 'They liked "Red Mill": war; they')) > best  # one true claim more


@pytest.mark.parametrize(
    "text",
    [
        "Yes. It fits.",
        'Yes. They liked "Night Ferry": war.',  # nothing of the target
        'Yes. This is "Iron Gate": war.',  # nothing of the history
    ],
)
def test_what_says_nothing_of_one_side_is_worth_nothing(text):
    assert worth(text) == 0.0


def credits(*answers):
    """Of every answer (each to a row of its own) a function: what claims add to the advantage of a word's letters."""
    checker = checker_of(ROW, keywords=["space"])
    groups = [
        refinement._Group.of(
            0, [Answer(text=text, tokens=[], ends=list(range(1, len(text) + 1)), finished=True)], checker
        )
        for text in answers
    ]
    usual = refinement.usually_true(groups)

    def of_word(answer, advantages, word):
        at = answer.text.index(word)
        return set(advantages[at : at + len(word)])

    return [partial(of_word, *each) for group in groups for each in group.judge(usual)]


UNTRUE = GOOD.replace('Ferry": war', 'Ferry": space')


def test_the_blame_for_a_false_word_falls_on_that_word_and_the_praise_for_a_true_one_on_the_other():
    false, true = credits(UNTRUE, GOOD)
    assert false("space") == {-refinement.CREDIT / 2} and true("war") == {refinement.CREDIT / 2}
    assert false("Night") == true("Night") == false("war") == {0.0}  # as true in the one as in the other
    assert false(". It still fits.") == true(". It still fits.") == {0.0}  # nothing is claimed


def test_a_kind_of_claim_that_is_seldom_true_is_no_reason_to_be_silent():
    """Else tastes, whose truth is harder than the target's, would be unlearned, and answers end worth nothing."""
    untrue, _ = credits(UNTRUE, UNTRUE)
    assert untrue("Night") == untrue("space") == untrue("war") == {0.0}


def test_an_answer_is_as_much_better_as_its_reward_is_above_the_others():
    checker = checker_of(ROW, keywords=["space"])
    ends = list(range(1, len(UNTRUE) + 1))
    both = [Answer(text=text, tokens=[], ends=ends, finished=True) for text in (UNTRUE, GOOD)]
    group = refinement._Group.of(0, both, checker)
    judged = group.judge(refinement.usually_true([group]))
    worse, better = (advantages[answer.text.index(". It still")] for answer, advantages in judged)
    assert better == -worse == pytest.approx(np.diff(group.rewards)[0] / 2) and better > 0


def test_what_does_not_end_is_worth_nothing():
    assert worth(GOOD, finished=False) == 0.0


def test_sampled_answers_go_on_from_the_verdict_that_the_label_says():
    table = interactions(3, users=2)
    model, layout, rows = recommender(table), layout_of(table), np.arange(12)
    how = Decoding(max_new_tokens=6, temperature=1.5, candidates=3, seed=4)
    groups = sample_answers(loaded_model(table, model, layout), rows, how)
    for row, group in zip(rows, groups, strict=True):
        assert len(group) == 3 and len({tuple(answer.tokens) for answer in group}) > 1
        for answer in group:
            assert parse_verdict(answer.text.split(" ")[0]) in (bool(table["label"][row]), None)
            assert answer.text.startswith(VERDICTS[table["label"][row]])
            assert 1 <= len(answer.tokens) <= 6
            spelled = tokenizer().decode(answer.tokens, skip_special_tokens=True)
            assert (VERDICTS[table["label"][row]] + spelled).strip() == answer.text
            assert len(answer.ends) == len(answer.tokens) and answer.ends == sorted(answer.ends)
            assert answer.ends[-1] >= len(answer.text)
            assert answer.finished == (answer.tokens[-1] == layout.vocabulary.end)
    again = sample_answers(loaded_model(table, model, layout), rows[::-1], how)[::-1]
    assert again == groups  # whatever stands beside a row


def test_a_greedy_sample_is_what_is_written_where_the_verdict_is_the_label(monkeypatch):
    table = interactions(3, users=2)
    model, layout, rows = recommender(table), layout_of(table), np.arange(24)
    add_to_logits(monkeypatch, model, layout.vocabulary.verdicts, 5.0)
    written = write_answers(loaded_model(table, model, layout), rows, Decoding(max_new_tokens=6))
    sampled = sample_answers(loaded_model(table, model, layout), rows, Decoding(max_new_tokens=5))
    same = [row for row in rows if written[row].startswith(VERDICTS[table["label"][row]])]
    assert len({written[row] for row in same}) > 2
    assert [written[row] for row in same] == [sampled[row][0].text for row in same]


@pytest.fixture
def letters(monkeypatch):
    """A checker that finds no claims; an answer is worth as much as it has of a letter."""
    monkeypatch.setattr(refinement, "reward", lambda check, answer: answer.text.count("e") / 10)
    checker = checker_of(ROW)
    checker.titles = checker.keywords = []
    return checker


def refined(checker, *, steps=8, answers=6, reasons=40, table=None):
    table = interactions(3, users=4) if table is None else table
    model = recommender(table)
    words = np.asarray(tokenizer()(". The tone is right.")["input_ids"], np.int32)
    layout = layout_of(table, reasons=dict.fromkeys(range(reasons), words))
    how = RefineParams(steps=steps, rows=12, answers=answers, learning_rate=0.02)
    params = params_with({"seed": 1}).model_copy(update={"refine": how})
    train_only(model, ("backbone",))
    loaded = loaded_model(table, model, layout)
    result = refine(loaded, params, checker, held_out={0: words, 13: words}, name="refinement")
    return result, model


def test_the_model_learns_to_write_what_is_worth_more(letters, monkeypatch):
    monkeypatch.setattr(refinement, "EVERY", 1)
    result, model = refined(letters, steps=8, reasons=160, table=interactions(3, users=8, rows=40))
    first, *_, last = result.epochs
    assert last["reward"] > first["reward"] + 0.1
    assert len(result.epochs) == 8 and result.best["reward"] == max(epoch["reward"] for epoch in result.epochs)
    assert not model.training


def test_answers_that_are_worth_the_same_teach_nothing(letters, monkeypatch):
    monkeypatch.setattr(refinement, "reward", lambda check, answer: 1.0)
    _, model = refined(letters, steps=3)
    before = recommender(interactions(3, users=4)).state_dict()
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_the_pieces_of_a_step_add_up_to_its_loss(letters, monkeypatch):
    plans = []
    monkeypatch.setattr(refinement, "train", lambda objective, plan, *_: plans.append((objective, plan)))
    table = interactions(3, users=4, ties=False)
    _, model = refined(letters, answers=3, table=table)
    [(objective, plan)] = plans
    step = plan.steps(0)[0]
    whole, halves = (
        sum(objective(**plan.collate(piece)).item() for piece in plan.cut(step, pieces)) for pieces in (1, 40)
    )
    assert whole == pytest.approx(halves, rel=1e-4) and whole != 0

    piece = plan.collate(plan.cut(step, 1)[0])
    rows = piece["target_rows"].tolist()
    assert set(rows).isdisjoint({0, 13}) and set(rows) <= set(range(48))
    by_hand = torch.zeros(())
    layout = layout_of(table)
    for number in range(3):  # each answer as a reason that is learned
        answers, advantages = (
            [tokens[number][piece["answers"][target, number] >= 0] for target, tokens in enumerate(piece[name])]
            for name in ("answers", "advantages")
        )
        taught = replace(layout, reasons=dict(zip(rows, (tokens.numpy() for tokens in answers), strict=True)))
        batch = taught.collate(taught.scoring_windows(np.sort(rows), np.arange(len(rows))))
        by_token = functional.cross_entropy(model(batch).reason_logits, batch.reason_tokens, reduction="none")
        for target, row in enumerate(batch.target_rows.tolist()):
            by_hand = by_hand + by_token[batch.reason_targets == target] @ advantages[rows.index(row)]
    loss, weights = objective(**piece), list(model.backbone.parameters())
    torch.testing.assert_close(loss, by_hand, rtol=1e-4, atol=1e-6)
    expected = torch.autograd.grad(by_hand, weights)
    torch.testing.assert_close(torch.autograd.grad(loss, weights), expected, rtol=1e-3, atol=1e-5)


def test_no_step_asks_about_rows_that_do_not_see_what_a_reason_is_held_to(letters, monkeypatch):
    plans = []
    monkeypatch.setattr(refinement, "train", lambda objective, plan, *_: plans.append(plan))
    table = interactions(3, users=4, rows=20)
    refined(letters, table=table, answers=2)
    layout = layout_of(table)
    for step in plans[0].steps(0):
        for window in step:
            rows = window.rows[window.target]
            held_to = np.minimum(layout.history, layout.end[rows] - layout.start[rows])
            assert len(rows) and ((window.rows < layout.end[rows, None]).sum(1) >= held_to).all()


def test_a_pass_has_as_few_rows_of_a_user_as_memory_asks_for(letters, monkeypatch):
    plans = []
    monkeypatch.setattr(refinement, "train", lambda objective, plan, *_: plans.append(plan))
    refined(letters)
    monkeypatch.setattr(refinement, "MUCH", 1)
    refined(letters)
    whole, parts = ([window for step in plan.steps(0) for window in step] for plan in plans)
    assert max(window.target.sum() for window in whole) > 1
    assert {int(window.target.sum()) for window in parts} == {1}
    assert plans[1].passes > plans[0].passes


def test_a_killed_refinement_goes_on_to_the_same_weights(letters, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(refinement, "EVERY", 3)
    long = {"steps": 6, "reasons": 160, "table": interactions(3, users=8, rows=40)}
    whole, model = refined(letters, **long)
    shown, steps = refinement.show, []

    def killed_in_the_fifth(*what):
        steps.append(what)
        if len(steps) == 5:
            raise KeyboardInterrupt
        shown(*what)

    monkeypatch.setattr(refinement, "show", killed_in_the_fifth)
    with pytest.raises(KeyboardInterrupt), resumable(run_params(checkpoint_steps=2)):
        refined(letters, **long)
    with resumable(run_params(checkpoint_steps=2)):
        resumed, again = refined(letters, **long)
    assert len(steps) == 5 + 1 + 2  # the first once more, to know what it was, and the fifth and sixth
    assert resumed.epochs == whole.epochs
    assert all(weight.equal(again.state_dict()[name]) for name, weight in model.state_dict().items())
