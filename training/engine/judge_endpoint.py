"""A judge behind an OpenAI-compatible server: POST url/chat/completions. Holds no torch.

The key is read from the environment variable JUDGE_API_KEY and goes into one header: never into
config, events, errors or answers. A reply is text of somebody else's; a verdict is looked for in it
and nothing else is done with it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from training.engine.config_judge import ADDRESSES, KEY, JudgeConfig
from training.engine.errors import ConfigError, JudgeError
from training.engine.judge_answers import LONGEST_TEXT, most_tokens
from training.engine.judge_prompts import Reply
from training.engine.posting import Post
from training.engine.stopping import raise_if_stopped, stop_requested

#: A verdict of 100,000 tokens with its envelope is shorter.
MAX_REPLY_BYTES = 4_000_000


class EndpointJudge:
    """Asks one question at a time."""

    at_once = 1

    def __init__(self, judge: JudgeConfig, seed: int) -> None:
        """Raises ConfigError for a key that no header can hold."""
        self._judge = judge
        self._seed = seed
        self._key = api_key()
        self._next = 0.0
        self._post = Post(
            url=f"{str(judge.url).rstrip('/')}/chat/completions",
            timeout_s=judge.timeout_s,
            retries=judge.retries,
            max_reply_bytes=MAX_REPLY_BYTES,
            failed=self._failed,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            addresses=tuple(os.environ.get(ADDRESSES, "").split()),
            before_try=self._take_turn,
        )

    def replies(self, questions: Sequence[list[dict[str, str]]]) -> list[Reply]:
        """One reply for each. Raises JudgeError naming the address, Interrupted."""
        return [self._reply(question) for question in questions]

    def _reply(self, question: list[dict[str, str]]) -> Reply:
        body = {
            "model": self._judge.model,
            "messages": question,
            "max_tokens": self._judge.max_new_tokens,
            "temperature": 0.0,
            "seed": self._seed,
        }
        data = self._post.ask(json.dumps(body, ensure_ascii=False).encode())
        try:
            reply = json.loads(data)
            choice = reply["choices"][0]
            message = choice["message"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise self._failed(
                "its reply is not that of a chat completion; is the address right, up to /v1?"
            ) from None
        text = message.get("content") if isinstance(message, dict) else None
        if text is not None and not isinstance(text, str):
            raise self._failed("the content of its reply is no text")
        return self._counted(question, text or "", reply)

    def _counted(
        self, question: Sequence[Mapping[str, str]], text: str, reply: Mapping[str, Any]
    ) -> Reply:
        """The reply with its tokens; where the server counts none, the most it can have been."""
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        asked, answered = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if self._key:
            text = text.replace(self._key, f"[{KEY}]")  # a server that repeats it is not believed
        return Reply(
            text=text.encode("utf-8", "replace").decode()[:LONGEST_TEXT],
            tokens_in=asked if is_count(asked) else most_tokens(question),
            tokens_out=answered if is_count(answered) else self._judge.max_new_tokens,
            failure="" if text.strip() else "the server sent an empty reply",
        )

    def _take_turn(self) -> None:
        """Wait until the rate limit allows another request. Raises Interrupted."""
        raise_if_stopped()
        rate = self._judge.requests_per_minute
        if rate > 0.0:
            stop_requested.wait(max(0.0, self._next - time.monotonic()))
            raise_if_stopped()
            self._next = time.monotonic() + 60.0 / rate

    def _failed(self, what: str) -> JudgeError:
        hint = ""
        if "status 401" in what or "status 403" in what:
            hint = f" ({KEY} is {'set, and refused' if self._key else 'not set'})"
        return JudgeError(
            f"judge.url {self._judge.url} does not judge: {what}{hint}. Mend it, then start the "
            "run again: what was answered is kept, and nothing is asked twice"
        )


def is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def api_key() -> str:
    """The key of the environment, empty without one. Raises ConfigError, which does not show it."""
    key = os.environ.get(KEY, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{KEY} holds characters that no HTTP header may; set it again")
    return key
