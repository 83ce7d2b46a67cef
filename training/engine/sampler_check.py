"""Before the first step: answers are written by the policy that is trained.

Whoever writes answers goes another way through the model than whoever trains on them: a cache of
keys and values, a token at a time, prompts padded to their left, 4-bit weights dequantized once.
Where the two ways part (an adapter passed over, a position counted wrong) every figure still looks
like one, and the policy learns from somebody else's answers. So a few are written, and the log-prob
that each token was drawn with is compared with that of a training pass over the same tokens.

A fresh adapter changes nothing, so that one which is passed over would not be seen. For the check
what is trained is moved by noise, strong enough to be seen in the training pass, and put back as it
was, to the bit.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from training.engine.data import PromptRow
from training.engine.errors import StepZeroError
from training.engine.generation import Generation, generate
from training.engine.models import Base
from training.engine.rundir import RunDir

#: How far the two log-probs of a token may be apart on average (nats): what other orders of
#: summation leave in fp32, logits that round at 2⁻⁸ in bf16, and int8 layers, which find the
#: outliers to keep in 16 bits among whatever tokens pass together. SmolLM2-135M on a processor:
#: 0.00001, 0.05 and 0.33 at most. The largest, 0.34 and 2.2 there, would part them less well.
BOUND = {"float32": 0.005, "bfloat16": 0.2, "int8": 0.6}
#: The noise must change log-probs by so many bounds, else a lost adapter hides in them.
CLEAR = 3.0
#: Standard deviations of the noise, tried in turn (from 0.8 on rounding alone decides in bf16).
NOISES = (0.05, 0.1, 0.2, 0.4)
#: What the check writes: so many answers of so many tokens at most.
PROMPTS, TOKENS = 4, 12

#: (prompts, an answer to each) to log-probs of the answers' tokens, one after another: (N,)
TrainingPass = Callable[[Sequence[PromptRow], Sequence[Generation]], Tensor]


@torch.no_grad()
def expect_same_sampler(
    run: RunDir,
    base: Base,
    adapter: str,
    prompts: Sequence[PromptRow],
    training_pass: TrainingPass,
    *,
    temperature: float,
    max_new_tokens: int,
) -> None:
    """Compare sampler and training pass under `adapter`, and write what was found as an event.

    Raises StepZeroError where they are further apart than rounding explains.
    """
    few = sorted(prompts, key=lambda prompt: len(prompt.tokens))[:PROMPTS]
    asked = base.config
    bound = BOUND["int8" if asked.quantization == "int8" else asked.dtype]
    seed = run.config.seed
    for noise in NOISES:
        with moved(base.parameters(adapter), noise, seed):
            with base.use(adapter):
                answers = generate(
                    base,
                    [prompt.tokens for prompt in few],
                    max_new_tokens=min(TOKENS, max_new_tokens),
                    temperature=temperature,
                    seed=seed,
                    keep_logps=True,
                )
                trained = training_pass(few, answers)
            with base.use(None):
                bare = training_pass(few, answers)
        sampled = torch.tensor([logp for answer in answers for logp in answer.logps])
        apart = (sampled - trained).abs()
        difference, largest = float(apart.mean()), float(apart.max())
        effect = float((bare - trained).abs().mean())
        if effect >= CLEAR * bound:
            break
    figures = {"difference": difference, "largest": largest, "effect": effect}
    if all(map(math.isfinite, figures.values())):
        run.events.write("sampler_check", **figures, bound=bound, noise=noise, tokens=len(sampled))
    if not difference <= bound:  # NaN is none
        raise StepZeroError(
            f"answers are written by another policy than the one that is trained: log-probs of "
            f"{len(sampled)} tokens differ by {difference:.3g} nats on average and {largest:.3g} "
            f"at most between the sampler and a training pass (bound of the average {bound:g}; "
            f"without the adapter it is {effect:.3g})"
        )
    if effect < CLEAR * bound:
        run.events.warning(
            "sampler_unproven",
            f"noise on the adapter changes log-probs by {effect:.3g} nats on average, so the check "
            "that answers are written under it proves little here",
        )


@contextlib.contextmanager
def moved(parameters: Sequence[nn.Parameter], noise: float, seed: int) -> Iterator[None]:
    """Within the block the parameters are moved by normal noise of this standard deviation."""
    before = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(seed)
    try:
        for parameter in parameters:
            step = torch.randn(parameter.shape, generator=generator) * noise
            parameter.add_(step.to(parameter.device, parameter.dtype))
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
