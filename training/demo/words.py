"""The demo's report as a person reads it."""

from __future__ import annotations

from typing import Any

from training.demo.report import Report


def number(value: Any) -> str:
    """A figure with as many digits as it deserves; absent figures are said to be absent."""
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def interval(metrics: dict[str, Any], name: str) -> str:
    """`value [low to high]` where the interval was measured."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None:
        return number(metrics.get(name))
    return f"{number(metrics.get(name))} [{number(low)} to {number(high)}]"


def readable(report: Report) -> str:
    """A table of the stages and the findings under it, every number as measured."""
    written = report.as_dict()
    lines = [f"{'stage':<10}{'rows':>7}{'steps':>7}{'seconds':>10}{'peak MB':>10}"]
    lines += [
        f"{stage['name']:<10}{stage['rows']:>7}{stage['steps']:>7}"
        f"{stage['seconds']:>10.1f}{stage['peak_mb']:>10.0f}"
        for stage in written["stages"]
    ]
    lines += [f"{'in all':<24}{written['total_s']:>10.1f}{written['peak_mb']:>10.0f}", ""]
    found = {stage["name"]: stage["metrics"] for stage in written["stages"]}
    agreement, reward = found.get("agreement", {}), found.get("reward", {})
    dpo, ppo, samples = found.get("dpo", {}), found.get("ppo", {}), found.get("sample", {})
    alpha = (
        f"{number(agreement.get('krippendorff_alpha'))} "
        f"[{number(agreement.get('alpha_low'))} to {number(agreement.get('alpha_high'))}]"
    )
    lines += [
        f"Human agreement (Krippendorff's alpha): {alpha}",
        f"  {agreement.get('note', '')}",
        f"Reward model, held-out accuracy: {interval(reward, 'reward/accuracy')}",
        f"DPO margin on held-out pairs: {number(dpo.get('dpo/margin_before'))} before, "
        f"{number(dpo.get('dpo/margin_after'))} after",
        f"PPO mean reward: {number(ppo.get('reward/mean_before'))} before, "
        f"{number(ppo.get('reward/mean_after'))} after; KL to the reference: "
        f"{number(ppo.get('kl/before'))} before, {number(ppo.get('kl/after'))} after (nats)",
        f"New comparisons waiting for a person: {number(samples.get('open_now'))}",
        "",
        "A 135M model and a few hundred pairs prove that the path works, not that the policy is "
        "better: read the intervals.",
    ]
    return "\n".join(lines)
