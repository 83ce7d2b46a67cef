"""Every metric the engine reports, with the sentence that pages show beside its curve."""

from __future__ import annotations

METRICS: dict[str, str] = {
    "loss/train": (
        "Training loss of the step (nats), a mean over its rows; SFT, pretrain: over its tokens."
    ),
    "loss/policy": "PPO's clipped policy loss, averaged over response tokens.",
    "loss/value": "PPO's clipped value loss, averaged over response tokens.",
    "loss/nll": "Mean negative log-probability of the chosen responses' tokens (nats per token).",
    "pretrain/domain_perplexity_before": "Perplexity of held-out domain documents before training.",
    "pretrain/domain_perplexity_before_low": "Lower end of its 95 % interval by document.",
    "pretrain/domain_perplexity_before_high": "Upper end of its 95 % interval by document.",
    "pretrain/domain_perplexity_after": "Perplexity of held-out domain documents after training.",
    "pretrain/domain_perplexity_after_low": "Lower end of its 95 % interval by document.",
    "pretrain/domain_perplexity_after_high": "Upper end of its 95 % interval by document.",
    "pretrain/domain_change": "Relative change of the domain's perplexity: below 0, learnt.",
    "pretrain/domain_change_low": "Lower end of the 95 % interval, paired by document.",
    "pretrain/domain_change_high": "Upper end of the 95 % interval, paired by document.",
    "pretrain/domain_bits_per_byte_before": "Bits per byte of the domain before training.",
    "pretrain/domain_bits_per_byte_after": "Bits per byte of the domain after training.",
    "pretrain/general_perplexity_before": "Perplexity of general text before training.",
    "pretrain/general_perplexity_before_low": "Lower end of its 95 % interval by document.",
    "pretrain/general_perplexity_before_high": "Upper end of its 95 % interval by document.",
    "pretrain/general_perplexity_after": "Perplexity of general text after training.",
    "pretrain/general_perplexity_after_low": "Lower end of its 95 % interval by document.",
    "pretrain/general_perplexity_after_high": "Upper end of its 95 % interval by document.",
    "pretrain/general_change": "Relative change of general text's perplexity: above 0, forgotten.",
    "pretrain/general_change_low": "Lower end of the 95 % interval, paired by document.",
    "pretrain/general_change_high": "Upper end of the 95 % interval, paired by document.",
    "pretrain/general_bits_per_byte_before": "Bits per byte of general text before training.",
    "pretrain/general_bits_per_byte_after": "Bits per byte of general text after training.",
    "classify/accuracy": "Share of texts whose most probable class is their label.",
    "classify/accuracy_low": "Lower end of the 95 % interval (by text, or Wilson's).",
    "classify/accuracy_high": "Upper end of the 95 % interval (by text, or Wilson's).",
    "classify/macro_f1": "Mean of the classes' F1, each counting alike, on held-out texts.",
    "classify/macro_f1_low": "Lower end of the 95 % interval, resampling texts.",
    "classify/macro_f1_high": "Upper end of the 95 % interval, resampling texts.",
    "classify/log_loss": "Mean negative log-probability of the labels of held-out texts (nats).",
    "classify/log_loss_low": "Lower end of the 95 % interval, resampling texts.",
    "classify/log_loss_high": "Upper end of the 95 % interval, resampling texts.",
    "classify/ece": "Expected calibration error: confidence against accuracy in 15 equal bins.",
    "classify/majority": "Accuracy of always saying the most frequent training class.",
    "classify/majority_low": "Lower end of the 95 % interval (by text, or Wilson's).",
    "classify/majority_high": "Upper end of the 95 % interval (by text, or Wilson's).",
    "optim/lr": "Learning rate of the step.",
    "optim/grad_norm": "Norm of the gradient before it was clipped.",
    "reward/accuracy": "Share of pairs whose chosen response scores higher than the rejected one.",
    "reward/accuracy_low": "Lower end of the 95 % interval, clustered by prompt.",
    "reward/accuracy_high": "Upper end of the 95 % interval, clustered by prompt.",
    "reward/margin": "Mean score of chosen minus mean score of rejected (reward units).",
    "reward/disagreement": "Standard deviation over the ensemble's heads, mean over responses.",
    "reward/tie_parameter": "Rao-Kupper's theta or Davidson's nu: the larger, the more ties.",
    "reward/reference_mean": "Mean score of chosen responses before the scale was normalised.",
    "reward/reference_std": "Standard deviation of those scores before it was normalised.",
    "reward/mean": "Mean reward-model score of the rollouts, without penalties (reward units).",
    "reward/scale": "Standard deviation of all scores so far, by which scores are divided (PPO).",
    "reward/mean_before": "Mean score of the starting policy's answers to fixed prompts.",
    "reward/mean_after": "Mean score of the trained policy's answers to the same prompts.",
    "reward/mean_reference": "Mean score of the reference's answers to the held-out prompts.",
    "reward/mean_policy": "Mean score of the policy's answers to the held-out prompts.",
    "reward/ece": "Expected calibration error of the held-out pairs' confidence, in 15 bins.",
    "reward/win_rate": "Share of prompts whose policy answer scores above the reference's.",
    "reward/win_rate_low": "Lower end of the 95 % interval (by prompt, or Wilson's).",
    "reward/win_rate_high": "Upper end of the 95 % interval (by prompt, or Wilson's).",
    "dpo/margin": "Implicit reward margin: beta times the difference of log-ratios (nats).",
    "dpo/accuracy": "Share of pairs with a positive implicit reward margin.",
    "dpo/margin_before": "Held-out implicit reward margin before training; 0 by construction.",
    "dpo/margin_after": "Held-out implicit reward margin after training (nats).",
    "dpo/accuracy_after": "Held-out share of pairs with a positive implicit reward margin.",
    "dpo/accuracy_after_low": "Lower end of the 95 % interval, clustered by prompt.",
    "dpo/accuracy_after_high": "Upper end of the 95 % interval, clustered by prompt.",
    "kto/margin": "Mean implicit reward of desirable minus that of undesirable answers (nats).",
    "kto/reward_desirable": "Mean implicit reward of desirable answers (nats).",
    "kto/reward_undesirable": "Mean implicit reward of undesirable answers (nats).",
    "kto/kl": "KL to the reference as KTO estimates it: on answers to other prompts (nats).",
    "orpo/nll": "Mean negative log-probability of chosen tokens, prompts included (nats).",
    "orpo/log_odds": "Log odds of chosen minus those of rejected, by mean log-prob per token.",
    "orpo/accuracy": "Share of pairs whose chosen response is the more probable per token.",
    "orpo/logps_chosen": "Mean log-probability of the chosen responses (nats per token).",
    "orpo/logps_rejected": "Mean log-probability of the rejected responses (nats per token).",
    "orpo/log_odds_before": "Held-out log odds ratio of chosen to rejected before training.",
    "orpo/log_odds_after": "Held-out log odds ratio of chosen to rejected after training.",
    "orpo/accuracy_after": "Held-out share of pairs whose chosen response is the more probable.",
    "orpo/accuracy_after_low": "Lower end of the 95 % interval, clustered by prompt.",
    "orpo/accuracy_after_high": "Upper end of the 95 % interval, clustered by prompt.",
    "reward/std": "Standard deviation of an update's rewards, penalties included (reward units).",
    "reward/same": "Share of prompts whose answers all got the same reward, and so teach nothing.",
    "rloo/clip_fraction": "Share of responses whose probability ratio was clipped (RLOO).",
    "held_out/accuracy": (
        "Share of a few held-out pairs that the weights of the step rank as people did: by the "
        "score, or by the implicit reward."
    ),
    "held_out/accuracy_low": "Lower end of the 95 % interval (clustered by prompt, or Wilson's).",
    "held_out/accuracy_high": "Upper end of the 95 % interval, clustered by prompt.",
    "logps/chosen": "Mean log-probability of the chosen responses (nats per response).",
    "logps/chosen_change": (
        "Log-probability of the chosen responses minus the reference's (nats per token)."
    ),
    "logps/rejected": "Mean log-probability of the rejected responses (nats per response).",
    "kl/to_reference": "KL to the reference per response, estimator k1 (nats).",
    "kl/coef": "Weight of the KL to the reference in the reward of the update.",
    "kl/k3": "KL to the reference per response, estimator k3 (nats).",
    "kl/before": "KL to the reference of the starting policy, estimator k1 (nats per response).",
    "kl/after": "KL to the reference of the trained policy, estimator k1 (nats per response).",
    "kl/policy": "KL to the reference on held-out prompts, estimator k1 (nats per response).",
    "kl/update": "KL from before to after the update, estimator k3 (nats per token).",
    "update/passes": "Passes over an update's answers before ppo.update_kl_stop ended it (PPO).",
    "entropy": "Next-token entropy at the sampling temperature, estimated by −log p (nats).",
    "entropy/full": "Next-token entropy over the whole vocabulary, mean of answer tokens (nats).",
    "clip/fraction": "Share of response tokens whose probability ratio was clipped.",
    "value/explained_variance": "Share of the returns' variance that the values explain (1: all).",
    "length/mean": "Mean response length (tokens).",
    "length/reference": "Mean length of the reference's responses (tokens).",
    "eos/rate": "Share of responses that the model ended itself.",
    "eos/reference": "Share of responses that the reference ended itself.",
    "judge/decided": "Share of judged comparisons in which both orders prefer the same answer.",
    "judge/flipped": "Share of judged comparisons whose verdict followed the place, so ties.",
    "judge/failed": "Share of comparisons for which one of two replies held no verdict.",
    "judge/first_place": "Share of verdicts for one side that are for the answer shown first.",
    "judge/tokens": "Tokens that the judge was asked and answered with, earlier attempts included.",
    "judge/cost": "What these tokens cost at judge.price_in and judge.price_out.",
}


def as_markdown() -> str:
    """docs/reference/metrics.md: every metric with its sentence, by group."""
    lines = [
        "# Metrics",
        "",
        "Written by `make docs` from `training/engine/metrics.py`, which pages and cards read too.",
        "A name means the same in every method; n and interval stand beside it on the pages.",
    ]
    groups = dict.fromkeys(name.partition("/")[0] for name in METRICS)
    for group in groups:
        lines += ["", f"## {group}", "| name | what it is |", "|---|---|"]
        lines += [
            f"| `{name}` | {sentence} |"
            for name, sentence in METRICS.items()
            if name.partition("/")[0] == group
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
