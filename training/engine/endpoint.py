"""Scores from an HTTP endpoint (`ppo.reward_url`), and which addresses it may have. Holds no torch.

POST with {"answers": [{"prompt": [{"role", "content"}], "response": "…", "finished": true}, …]};
the reply is 200 with {"scores": [number, …]}, one for each answer in their order. See
docs/methods/ppo.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.engine.errors import RewardSourceError
from training.engine.posting import Post, check_url

#: Answers in one request.
BATCH = 32
#: No honest reply to so few answers is longer.
MAX_REPLY_BYTES = 1_000_000


def check_reward_url(url: str) -> None:
    """Raise ConfigError unless prompts and answers may be sent to this address."""
    check_url("ppo.reward_url", url)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Asks one address for scores. A signal is obeyed while it waits."""

    url: str
    timeout_s: float
    retries: int

    def scores(self, answers: Sequence[dict[str, Any]]) -> list[float]:
        """One finite number for each answer, in one request.

        Raises RewardSourceError naming the endpoint, Interrupted after a signal.
        """
        body = json.dumps({"answers": list(answers)}, ensure_ascii=False).encode()
        post = Post(
            url=self.url,
            timeout_s=self.timeout_s,
            retries=self.retries,
            max_reply_bytes=MAX_REPLY_BYTES,
            failed=self._failed,
        )
        return self._read(post.ask(body), len(answers))

    def _read(self, data: bytes, wanted: int) -> list[float]:
        """The scores of a reply: as many as were asked for, all of them numbers."""
        try:
            reply = json.loads(data)
            scores = reply["scores"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._failed('its reply is not JSON of the form {"scores": […]}') from None
        if not isinstance(scores, list) or len(scores) != wanted:
            n = len(scores) if isinstance(scores, list) else "no list of"
            raise self._failed(f"it gave {n} scores for {wanted} answers")
        for number, score in enumerate(scores, start=1):
            is_number = isinstance(score, int | float) and not isinstance(score, bool)
            if not is_number or not abs(score) < 1e300 or not math.isfinite(score):
                raise self._failed(f"score {number} of {wanted} is {score!r}, no finite number")
        return [float(score) for score in scores]

    def _failed(self, what: str) -> RewardSourceError:
        return RewardSourceError(
            f"ppo.reward_url {self.url} does not score: {what}. Mend it, then start the run again: "
            "it goes on from its newest checkpoint"
        )
