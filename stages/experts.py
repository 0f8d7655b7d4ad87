"""Global model and user vectors -> user groups and one LoRA per group. Run: thinkrec-stage experts"""


def experts() -> str:
    """Group users, train one LoRA expert per group."""
    import numpy as np
    import torch

    from thinkrec import artifacts
    from thinkrec.data.holdout import late_train_rows
    from thinkrec.gate import groups as grouping
    from thinkrec.lm.experts import add_expert, expert_folder, save_adapter
    from thinkrec.lm.finetune import finetune
    from thinkrec.lm.trainer import TrainSettings
    from thinkrec.lm.workbench import open_global
    from thinkrec.params import load

    params = load()
    torch.manual_seed(params.seed)
    traces = artifacts.read_table(artifacts.TRACES) if params.sft.think_share else None
    bench = open_global(params.prompt, traces=traces)
    users = int(bench.user.max()) + 1
    groups, stats = grouping.group_users(
        bench.features.user_bank[:users],
        n=params.experts.n,
        space=params.experts.space,
        min_users=params.experts.min_users,
        seed=params.seed,
    )
    late = late_train_rows(bench.interactions, params.experts.holdout)
    group = groups.group[bench.user]
    results = []
    with artifacts.atomic(artifacts.EXPERTS) as partial:
        grouping.save(groups, partial)
        for number in range(1, len(groups.centroids) + 1):
            expert = add_expert(
                bench.model.backbone, params.lora, layers=params.experts.layers, global_adapter=bench.adapter
            )
            model, layout = bench.prompted(slots=bench.recipe.expert_slots)
            result = finetune(
                model,
                layout,
                train_rows=np.intersect1d(bench.rows("train"), np.flatnonzero((group == number - 1) & ~late)),
                valid_rows=np.intersect1d(bench.rows("valid"), np.flatnonzero(group == number - 1)),
                user=bench.user,
                params=params.sft,
                settings=TrainSettings(
                    name=f"expert_{number}",
                    epochs=params.experts.epochs,
                    learning_rate=params.experts.learning_rate,
                    weight_decay=0.0,
                    seed=params.seed,
                ),
            )
            save_adapter(expert, expert_folder(partial, number), base=str(bench.base))
            expert.unload()
            results.append({"expert": number, **result.best})
    artifacts.write_metrics("experts", {**stats, "experts": results})
    return f"{len(results)} experts for groups of {', '.join(map(str, stats['users'])) or 'no'} users"
