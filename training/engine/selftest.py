"""`python -m training.engine selftest`: this installation against numbers known from elsewhere.

Each check says what was expected, what this code computed here, and where the number is from. The
pure functions are those that the training loops call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.engine.advantages import (
    approximate_kl,
    generalized_advantages,
    kl_shaped_rewards,
    length_mask,
    masked_mean,
    policy_losses,
    value_losses,
    whiten,
)
from training.engine.controllers import KLController
from training.engine.logprobs import TokenLogProbs
from training.engine.losses import dpo_losses, reward_losses

#: The bandit of the closed-form checks: one token out of four.
BANDIT_REFERENCE = (0.5, 0.3, 0.15, 0.05)
BANDIT_REWARDS = (0.0, 1.0, 2.0, 3.0)
TRL = "TRL 1.16, torchtune's fixture"


@dataclass(frozen=True)
class Check:
    """One comparison: numbers that should agree to `within`."""

    name: str
    expected: tuple[float, ...]
    got: tuple[float, ...]
    within: float
    source: str

    @property
    def error(self) -> float:
        """The largest distance; infinite where the lengths differ, nan where a number is."""
        if len(self.expected) != len(self.got):
            return math.inf
        return max(abs(a - b) for a, b in zip(self.expected, self.got, strict=True))

    @property
    def passed(self) -> bool:
        return self.error <= self.within


def check(
    name: str, expected: Sequence[float], got: Tensor | Sequence[float], within: float, source: str
) -> Check:
    numbers = got.flatten().tolist() if isinstance(got, Tensor) else got
    return Check(name, tuple(expected), tuple(float(each) for each in numbers), within, source)


def preference_losses() -> Iterator[Check]:
    """Bradley-Terry, and DPO with its successors, on fixed log-probs."""
    source = "−log σ(d), Bradley & Terry 1952; arXiv 2203.02155, eq. 1"
    differences = torch.tensor([0.0, 1.0, 2.0])
    losses, _ = reward_losses(differences, torch.zeros(3), torch.ones(3))
    yield check(
        "Bradley-Terry at d = 0, 1, 2", [0.693147, 0.313262, 0.126928], losses, 1e-6, source
    )

    logps = torch.tensor([[-0.5, -0.1], [-10.0, -30.0], [-1.0, -21.0]])
    refs = torch.tensor([[-0.5, -0.1], [-10.1, -20.1], [-0.1, -0.1]])
    lengths, certain = torch.ones(3, 2), torch.ones(3)
    sigmoid, margins = dpo_losses(logps, refs, lengths, certain, beta=0.1)
    yield check("DPO, sigmoid", [0.693147, 0.313262, 0.126928], sigmoid, 1e-5, TRL)
    expected = [-math.log(1 / (1 + math.exp(-m))) for m in margins.tolist()]
    yield check(
        "DPO, sigmoid, of its own margins", expected, sigmoid, 1e-6, "arXiv 2305.18290, eq. 7"
    )
    flipped, _ = dpo_losses(logps.flip(1), refs.flip(1), lengths, 1 - certain, beta=0.1)
    yield check("DPO, sides and label exchanged", sigmoid.tolist(), flipped, 1e-6, "symmetry")
    ipo, _ = dpo_losses(logps, refs, lengths, certain, beta=0.1, loss="ipo")
    gaps = ((logps - refs)[:, 0] - (logps - refs)[:, 1]).tolist()
    expected = [(gap - 5.0) ** 2 for gap in gaps]
    yield check("IPO, (Δ − 1/2β)²", expected, ipo, 1e-4, "arXiv 2310.12036, eq. 17")


def advantage_estimates() -> Iterator[Check]:
    """GAE and whitening on published fixtures."""
    rewards = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    _, returns = generalized_advantages(
        rewards, rewards.clone(), torch.ones(1, 4, dtype=torch.bool), gamma=0.9, lam=0.95
    )
    expected = [0.9**3 * 0.95**2, 0.9**2 * 0.95, 0.9, 1.0]
    yield check("returns of GAE", expected, returns, 1e-6, "torchtune's fixture; arXiv 1506.02438")
    table = torch.tensor([[1.2, 1.3, 1.4], [1.5, 1.6, 1.7], [1.8, 1.9, 2.0]])
    kept = whiten(table, torch.ones(3, 3, dtype=torch.bool), shift_mean=False)
    expected = [0.1394, 0.5046, 0.8697, 1.2349, 1.6, 1.9651, 2.3303, 2.6954, 3.0606]
    source = "N implementation details of RLHF with PPO, reward whitening (unbiased)"
    yield check("rewards whitened, mean kept", expected, kept, 1e-4, source)


def ppo_losses() -> Iterator[Check]:
    """The clipped losses at points on every side of the clip."""
    ratios = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    losses = policy_losses(ratios.log(), torch.zeros(5), signs, cliprange=0.2)
    expected = [-1.2, -0.5, 1.5, 0.8, -1.1]
    yield check("PPO's policy loss", expected, losses, 1e-6, "arXiv 1707.06347, eq. 7, by hand")
    values = torch.tensor([1.0, 0.1, -1.0])
    losses = value_losses(values, torch.zeros(3), torch.ones(3), cliprange_value=0.2)
    expected = [0.5 * 0.8**2, 0.5 * 0.9**2, 0.5 * 4.0]
    yield check("PPO's value loss", expected, losses, 1e-6, "arXiv 2403.17031, by hand")
    controller = KLController(0.15, 6.0, 10_000)
    controller.update(12.0, 64)
    yield check(
        "adaptive KL weight, KL at twice its target", [0.15 * (1 + 0.2 * 64 / 10_000)],
        [controller.coef], 1e-9, "arXiv 1909.08593, section 2.2",
    )  # fmt: skip


def kl_estimators() -> Iterator[Check]:
    """Bias and spread of k1, k2, k3 between two Gaussians, in units of the true KL."""
    generator = torch.Generator().manual_seed(0)
    published = {
        0.1: {"k1": (0.0, 20.0), "k2": (0.002, 1.42), "k3": (0.0, 1.42)},
        1.0: {"k1": (0.0, 2.0), "k2": (0.25, 1.73), "k3": (0.0, 1.69)},
    }
    for mean, of in published.items():
        drawn = torch.randn(1_000_000, generator=generator, dtype=torch.float64) + mean
        logps, refs = -0.5 * (drawn - mean).square(), -0.5 * drawn.square()
        true = 0.5 * mean**2
        for name, (bias, spread) in of.items():
            estimates = approximate_kl(logps, refs, name) / true  # type: ignore[arg-type]
            off = [estimates.mean().item() - 1.0]
            noise = 5 * spread / math.sqrt(len(drawn))
            title, source = f"{name} at μ = {mean}", "joschu.net/blog/kl-approx.html"
            yield check(f"{title}: bias", [bias], off, noise + 5e-4, source)
            got = [estimates.std().item()]
            yield check(f"{title}: spread", [spread], got, 0.01 * spread, source)


def log_probs() -> Iterator[Check]:
    """The chunked head against plain logits, forward and backward."""
    torch.manual_seed(0)
    states = torch.randn(300, 16, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(50, 16, dtype=torch.float64), torch.randint(50, (300,))
    plain = ((states @ weight.t()) / 0.7).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    pull = torch.randn(300, dtype=torch.float64)
    (expected,) = torch.autograd.grad((plain * pull).sum(), states)
    ours = TokenLogProbs.apply(states, weight, targets, 0.7)
    (got,) = torch.autograd.grad((ours * pull).sum(), states)
    source = "log_softmax and autograd of torch"
    yield check("log-probs in chunks", plain.tolist(), ours, 1e-5, source)
    yield check("their gradient", expected.flatten().tolist(), got, 1e-5, source)


def four_bits() -> Iterator[Check]:
    """NF4's size and error, from the installed bitsandbytes."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    for nested, bits in ((False, 4.5), (True, 4 + 8 / 64 + 32 / (64 * 256))):
        packed, state = quantize_4bit(weights, quant_type="nf4", compress_statistics=nested)
        parts = [packed, state.absmax, *([state.state2.absmax] if nested else [])]
        held = sum(8 * part.numel() * part.element_size() for part in parts) / weights.numel()
        title = f"NF4{', double quantization' if nested else ''}: bits per weight"
        yield check(title, [bits], [held], 1e-3, "arXiv 2305.14314, section 3")
    back = dequantize_4bit(packed, state)
    rmse = ((back - weights).square().mean().sqrt() / weights.square().mean().sqrt()).item()
    yield check("NF4: relative error of N(0, 1)", [0.092], [rmse], 2e-3, "measured, two machines")


def optimum(beta: float) -> Tensor:
    """π* ∝ π_ref·exp(r/β), the maximum of E[r] − β·KL(π ‖ π_ref). Returns: (4,)"""
    weights = torch.tensor(BANDIT_REFERENCE) * (torch.tensor(BANDIT_REWARDS) / beta).exp()
    return weights / weights.sum()


def bandit_by_dpo(beta: float) -> Tensor:
    """What DPO makes of every pair, labelled by Bradley-Terry on the rewards. Returns: (4,)"""
    reference, rewards = torch.tensor(BANDIT_REFERENCE).log(), torch.tensor(BANDIT_REWARDS)
    logits = reference.clone().requires_grad_()
    first, second = torch.combinations(torch.arange(4)).unbind(1)
    labels = torch.sigmoid(rewards[first] - rewards[second])
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(600):
        logps = logits.log_softmax(0)
        losses, _ = dpo_losses(
            torch.stack([logps[first], logps[second]], 1),
            torch.stack([reference[first], reference[second]], 1),
            torch.ones(len(first), 2), labels, beta=beta,
        )  # fmt: skip
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    return logits.detach().softmax(0)


def bandit_by_ppo(beta: float) -> Tensor:
    """What sampled, clipped PPO makes of it, with the KL in the reward. Returns: (4,)"""
    reference, rewards = torch.tensor(BANDIT_REFERENCE).log(), torch.tensor(BANDIT_REWARDS)
    logits = reference.clone().requires_grad_()
    value = torch.zeros((), requires_grad=True)
    updates, episodes, generator = 250, 512, torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([logits, value], lr=0.1, eps=1e-5)
    lengths, finished = (
        torch.ones(episodes, dtype=torch.long),
        torch.ones(episodes, dtype=torch.bool),
    )
    mask = length_mask(lengths, 1)
    for update in range(updates):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - update / updates)
        probabilities = logits.detach().softmax(0)
        drawn = torch.multinomial(probabilities, episodes, replacement=True, generator=generator)
        old, refs = probabilities.log()[drawn, None], reference[drawn, None]
        shaped = kl_shaped_rewards(
            old, refs, rewards[drawn], lengths, finished, kl_coef=beta, missing_eos_penalty=1.0
        )
        values = value.detach().expand(episodes, 1)
        advantages, returns = generalized_advantages(shaped, values, mask, gamma=1.0, lam=0.95)
        advantages = whiten(advantages, mask)
        for _ in range(2):
            logps = logits.log_softmax(0)[drawn, None]
            policy = masked_mean(policy_losses(logps, old, advantages, cliprange=0.2), mask)
            critic = masked_mean(
                value_losses(value.expand(episodes, 1), values, returns, cliprange_value=0.2), mask
            )
            optimizer.zero_grad()
            (policy + critic).backward()
            optimizer.step()
    return logits.detach().softmax(0)


def closed_form() -> Iterator[Check]:
    """Both preference methods end at the optimum of the KL-regularised bandit."""
    published = {
        1.0: [0.145853, 0.237881, 0.323314, 0.292953],
        0.5: [0.016089, 0.071328, 0.263523, 0.649061],
    }
    source = "π* ∝ π_ref·exp(r/β), arXiv 1909.08593, eq. 3"
    for beta, expected in published.items():
        yield check(f"π* at β = {beta}", expected, optimum(beta), 1e-5, source)
    beta, reference = 1.0, torch.tensor(BANDIT_REFERENCE)
    for name, found in (("DPO", bandit_by_dpo(beta)), ("PPO", bandit_by_ppo(beta))):
        distance = 0.5 * (found - optimum(beta)).abs().sum().item()
        title = f"{name} on the bandit: total variation to π*"
        yield check(title, [0.0], [distance], 0.02, source)
        gain = (found * torch.tensor(BANDIT_REWARDS)).sum() - beta * (
            found * (found / reference).log()
        ).sum()
        yield check(f"{name} on the bandit: J", [1.232012], [gain.item()], 0.02 * 1.232, source)


SECTIONS: tuple[Callable[[], Iterator[Check]], ...] = (
    preference_losses,
    advantage_estimates,
    ppo_losses,
    kl_estimators,
    log_probs,
    four_bits,
    closed_form,
)


def run() -> list[Check]:
    """Every check, in the order of the table."""
    return [each for section in SECTIONS for each in section()]


def numbers(values: Sequence[float]) -> str:
    shown = " ".join(f"{value:.5g}" for value in values[:3])
    return f"{shown} …" if len(values) > 3 else shown


def table(checks: Sequence[Check]) -> str:
    """The checks as text, a line each."""
    head = ("", "check", "expected", "got", "error", "within", "source")
    lines = [head] + [
        (
            "ok" if each.passed else "FAILED",
            each.name,
            numbers(each.expected),
            numbers(each.got),
            f"{each.error:.1e}",
            f"{each.within:.1e}",
            each.source,
        )
        for each in checks
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
