"""What the paper's tables say in words: heads of columns, names of rows, and the notes that explain them."""

from __future__ import annotations

from thinkrec.campaign import paper
from thinkrec.campaign.cells import NOTHING
from thinkrec.campaign.spread import LIFT
from thinkrec.evaluation.models import HINDSIGHT, OURS, display_name

HEADS = {
    "auc": "AUC",
    "uauc": "UAUC",
    "ndcg@5": "NDCG@5",
    "ndcg@10": "NDCG@10",
    "map@5": "MAP@5",
    LIFT: "share of the achievable lift",
    "meteor": "METEOR",
}

# Rows that are no model of the base run, by the tables that show them: a new row stands there by its line here.
LANGUAGE_MODELS = {
    "collm": "as CoLLM: features in the slots",
    "tallrec": "as TALLRec: text only",
    "soft_prompt": "as Prompt4NR: text and learned vectors",
}
ABLATIONS = {
    "no_thinking": "no thinking",
    "no_experts": "no experts",
    "neither": "neither thinking nor experts",
    "no_features": "no features: text alone, matched with the history",
    "no_keywords": "no keywords",
    "features_lightgcn": "LightGCN's features",
    "features_sasrec": "SASRec's features",
    "features_mf": "MF's features",
    "features_hybrid_sasrec": "features of SASRec + keywords",
}
EXPERT_COUNTS = {"experts_1": "1 expert", "experts_2": "2 experts", "experts_4": "4 experts"}
ROW_NAMES = LANGUAGE_MODELS | ABLATIONS | EXPERT_COUNTS
LEARNED = {"meteor_wordnet": "METEOR with synonyms", "bertscore": "BERTScore", "bleurt": "BLEURT"}
CLAIMED = {
    "wholly_true_share": "wholly true",
    "claims_true_share": "claims true",
    "target_true_share": "of the target",
    "history_true_share": "of the history",
}

LEGEND = (
    "In brackets: 95 % intervals, bootstrap over users. A lead is ThinkRec minus the line, paired on the same "
    "interactions; *ahead* marks a significant lead (its 95 % CI is above 0), *behind* one below 0, and no word that "
    "the interval includes 0. A star: so it is after Holm's correction over the table, too. Beside a figure of the "
    "paper, *above* or *below* says that our whole interval is, *within* that it includes the figure."
)
ACCURACY_NOTE = (
    "The paper's language models are Llama3-8B. Ours are of one seed here; several seeds follow below. Rows other than "
    "ThinkRec have its hyper-parameters; those of the baselines were chosen on the synthetic dataset's valid split. "
    "All rows share one pretrained backbone, except that rows without keywords have one that never saw any."
)
UNKNOWN_NOTE = "The paper does not have this dataset."
STATIC_NOTE = (
    "The same models where nothing after the split began is known. The lead is that of ThinkRec under the same "
    "protocol."
)
ABLATION_NOTE = (
    f"The paper ablates on its {paper.ABLATION_DATASET} dataset, so only the sign of its leads can be compared. "
    "Without thinking, fine-tuning sees no trace; the backbone was pretrained on traces, as in all rows. Without "
    "keywords, the backbone never saw keywords either: a lead over such a row is of both."
)
NEW_ITEMS_NOTE = (
    "Test rows about items that train never saw: {rows:,} interactions of {users:,} users. Models that know items by "
    "their ids alone can only tell users apart here. Tables over seeds follow, if there are several: mean ± deviation, "
    "and joint leads."
)
NOT_MEASURED = "These are too few to be measured, or of one class."
SEEDS_NOTE = "Mean ± standard deviation over seeds; all other parameters are the same. Baselines are fitted per seed."
JOINT_NOTE = (
    "ThinkRec's joint lead is the mean over seeds of ThinkRec minus the line of the same seed. Its interval is over "
    "draws of users, the same for all seeds: what other seeds would change is in the deviations above."
)
EXPERTS_NOTE = (
    "ThinkRec has {n} experts here. The paper counts experts on a new split of "
    f"{paper.ABLATION_DATASET}: none, 2 and {paper.EXPERTS_OF_OURS}. The oracle expert is chosen by the labels that it "
    "is measured on, so it is no competitor."
)
REASONS_NOTE = (
    "METEOR, ROUGE-L and BLEU compare with the teacher's reasons in the same run; ThinkRec's lead compares both with "
    "the teacher's in ThinkRec's run. Our METEOR matches words and stems, the paper's synonyms too, and references and "
    "language models differ: only the order of lines can be compared. Right: the verdict stated is the label. Agrees: "
    f"it is that of the score. {NOTHING}: not computed."
)
CHECKS_NOTE = (
    "What the reasons claim, checked. Versions: of so many versions of each sentence the least untrue one was taken, "
    "so 1 is what the model writes by itself. Then the share of texts that claim something and nothing that is not so; "
    "the true share of claims, of those about the target, of those about the history. Each is literal, whoever wrote: "
    "the very word was shown; behind it by meaning, where a synonym counts, too, by the thesaurus that the run names. "
    "Last, the share of conclusions that are the text's own verdict."
)
NAMED_NOTE = (
    "True reason named: the share of texts that name it, beside what as many of the target's keywords drawn at random "
    "would name, and as many of those that are words of a trait; the lead is over the latter."
)
MOVED_NOTE = (
    "Last: how far the score's logit moves if what the reason cites of the history is flipped or dropped, or what it "
    "cites of the target's keywords is masked; how far if as much is that it does not cite; and the difference."
)
RUNS_NOTE = "By the commit that they started from; + where code was changed beyond it."


def line_title(name: str) -> str:
    """The name that a line has in every table: ThinkRec bold, what knows the labels in italics."""
    title = ROW_NAMES.get(name) or display_name(name)
    return f"**{title}**" if name == OURS else f"*{title}*" if name in HINDSIGHT else title
