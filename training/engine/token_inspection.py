"""What is wrong with a run's rows once they are tokens: boundaries, truncation, pad == EOS.

`inspect_rows` is what every training run does before its first step, and what
`python -m training.engine preflight RUN_DIR` prints without loading the weights.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from training.engine.classify_data import labels_of, place, text_tokens
from training.engine.config import ONLINE_METHODS, TEXT_METHODS, BaseConfig, DataConfig, RunConfig
from training.engine.data import prompt_tokens, require_messages, response_tokens
from training.engine.errors import BaseModelError, DataError
from training.engine.inspection import (
    Finding,
    Row,
    fatal,
    inspect_conversations,
    inspect_labelled,
    inspect_pairs,
    inspect_prompts,
    judged,
    refusal,
)
from training.engine.models import Base, turn_end, usable_positions
from training.engine.pretrain_data import GENERAL_FILE, REPLAY_FILE
from training.engine.pretrain_inspection import inspect_documents
from training.engine.rundir import RunDir, read_config, read_rows

#: Methods that train on conversations, and on prompts alone; all others train on pairs.
CONVERSATIONS, PROMPTS = ("sft",), (*ONLINE_METHODS, "sample")
#: What `data.py` warns of in its own words.
TOLD_BY_ENCODING = ("cut", "left_out")


@dataclass(frozen=True)
class Texts:
    """The part of a base that turns text into tokens; stands in for `Base` without its weights."""

    tokenizer: Any
    #: -1 where nothing is answered.
    eos_id: int
    positions: int | None


def load_texts(config: BaseConfig, *, turns: bool = True) -> Texts:
    """The tokenizer of a base. Raises BaseModelError as `load_base` does.

    turns: whether conversations are read, which takes a chat template.
    """
    from transformers import AutoConfig, AutoTokenizer

    from training.engine.sources import locate, not_loaded

    try:
        named: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
        shape = AutoConfig.from_pretrained(locate(config.source), **named)
        tokenizer = AutoTokenizer.from_pretrained(locate(config.source), **named)
    except (OSError, ValueError) as error:
        raise not_loaded(config.source, error) from error
    if not turns:
        return Texts(tokenizer, -1, usable_positions(shape))
    if tokenizer.chat_template is None:
        raise BaseModelError(f"the tokenizer of {config.source!r} has no chat template")
    end = turn_end(cast(Any, SimpleNamespace(config=shape)), tokenizer)
    return Texts(tokenizer, end, usable_positions(shape))


@dataclass(frozen=True)
class Piece:
    """A prompt and the response that follows it in one row, as text and as tokens."""

    row: str
    prompt_text: str
    response_text: str
    prompt: tuple[int, ...]
    #: Ends with the token that ends a turn.
    response: tuple[int, ...]


def inspect_rows(
    texts: Base | Texts, config: RunConfig, folder: Path
) -> tuple[list[Finding], float]:
    """(every finding about a run's rows, the seconds it took). Raises DataError for a wrong row."""
    began = time.monotonic()
    data = config.data
    if config.method == "classify":
        return inspect_texts(texts, config, folder), time.monotonic() - began
    if config.method == "pretrain":
        others = (
            read_rows(folder / name) if has_rows(folder / name) else []
            for name in (data.test, GENERAL_FILE, REPLAY_FILE)
        )
        rows = read_rows(folder / data.train)
        return inspect_documents(rows, *others), time.monotonic() - began
    if config.method in PROMPTS:
        rows = read_rows(folder / data.prompts)
        section = config.ppo or config.grpo or config.rloo or config.sample
        assert section is not None  # noqa: S101 - the config guarantees it
        found = [p for n, row in enumerate(rows, 1) for p in pieces_of(texts, row, n)]
        room = (texts.positions or data.max_length) - section.max_new_tokens
        bound = min(data.max_prompt_length, room)
        findings = [*inspect_prompts(rows), left_out(found, bound)]
    elif config.method in CONVERSATIONS:
        rows = read_rows(folder / data.train)
        found = [p for n, row in enumerate(rows, 1) for p in last_turn(texts, row, n)]
        findings = inspect_conversations(rows) + token_findings(texts, found, data)
    else:
        measures = config.method == "evaluate"
        every = read_rows(folder / (data.test if measures else data.train))
        rows = [row for row in every if not has_label(config, row)]
        test = folder / data.test
        held_out = read_rows(test) if not measures and has_rows(test) else []
        found = [
            piece
            for number, row in enumerate(rows, start=1)
            for piece in pieces_of(texts, row, number, "chosen", "rejected")
        ]
        both = zip(found[::2], found[1::2], strict=True)
        lengths = {one.row: (len(one.response), len(other.response)) for one, other in both}
        findings = inspect_pairs(rows, held_out, lengths=lengths)
        labelled = [row for row in every if has_label(config, row)]
        found += [
            p for n, row in enumerate(labelled, 1) for p in pieces_of(texts, row, n, "completion")
        ]
        findings += token_findings(texts, found, data)
    return [*findings, pad_is_eos(texts)], time.monotonic() - began


def inspect_texts(texts: Base | Texts, config: RunConfig, folder: Path) -> list[Finding]:
    """Findings about texts with labels. Raises DataError for labels that cannot be learnt."""
    data, test = config.data, folder / config.data.test
    rows = read_rows(folder / data.train)
    held_out = read_rows(test)[: data.max_test_rows] if has_rows(test) else []
    assert config.classify is not None  # noqa: S101 - the config guarantees it
    labels_of(rows, held_out, config.classify)
    longest = min(data.max_length, texts.positions or data.max_length)
    cut = []
    for what, group in (("train", rows), ("test", held_out)):
        for number, row in enumerate(group, start=1):
            tokens, whole = text_tokens(texts, row, place(number, row, what), longest)
            cut += [str(row.get("id", number))] if whole > len(tokens) else []
    return [
        *inspect_labelled(rows, held_out),
        judged(
            "cut",
            cut,
            len(rows) + len(held_out),
            f"texts have more than {longest} tokens",
            "They are read up to there: raise data.max_length where the base has positions for it.",
        ),
    ]


def has_label(config: RunConfig, row: Row) -> bool:
    """Whether a row of KTO's is one answer with a label rather than a pair."""
    return config.method == "kto" and "chosen" not in row


def has_rows(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def pieces_of(texts: Base | Texts, row: Row, number: int, *sides: str) -> list[Piece]:
    """The prompt of a row with each of these responses; with none, the prompt alone."""
    where = f"row {number} ({row.get('id', 'no id')})"
    messages = require_messages(row.get("prompt"), f"{where}: prompt")
    answers = [require_messages(row.get(side), f"{where}: {side}")[-1]["content"] for side in sides]
    return pieces(texts, str(row.get("id", number)), messages, answers or [""])


def last_turn(texts: Base | Texts, row: Row, number: int) -> list[Piece]:
    """The last answer of a conversation behind what came before it."""
    where = f"row {number} ({row.get('id', 'no id')}): messages"
    messages = require_messages(row.get("messages"), where)
    if len(messages) < 2:
        raise DataError(f"{where}: an assistant message needs something to answer")
    name = str(row.get("id", number))
    return pieces(texts, name, messages[:-1], [messages[-1]["content"]])


def pieces(
    texts: Base | Texts, row: str, messages: list[dict[str, str]], responses: Sequence[str]
) -> list[Piece]:
    """The template is rendered once for all responses of a row: that is what takes the time."""
    base = cast(Base, texts)
    tokens = prompt_tokens(base, messages, f"row {row}: prompt")
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return [
        Piece(row, str(text), response, tokens, response_tokens(base, response))
        for response in responses
    ]


def token_findings(texts: Base | Texts, pieces: Sequence[Piece], data: DataConfig) -> list[Finding]:
    """Truncation, and the boundary between prompt and response."""
    longest = min(data.max_length, texts.positions or data.max_length)
    bound = min(data.max_prompt_length, longest - 1)
    kept = [piece for piece in pieces if len(piece.prompt) <= bound]
    return [
        left_out(pieces, bound),
        judged(
            "cut",
            [p.row for p in kept if len(p.prompt) + len(p.response) > longest],
            len(kept),
            f"responses cut at {longest} tokens of prompt and response",
            "A cut response is learnt without its end: raise data.max_length, or leave them out.",
        ),
        judged(
            "token_boundary",
            [p.row for p in kept if depends_on_prompt(texts, p)],
            len(kept),
            "responses whose tokens are others when they are tokenised together with the prompt",
            "The two are tokenised apart here, in training and in sampling alike, so nothing "
            "breaks; a trainer that tokenises them together sees other tokens. Responses that "
            "begin with a blank are the usual cause.",
        ),
    ]


def depends_on_prompt(texts: Base | Texts, piece: Piece) -> bool:
    """Whether prompt and response merge; a quoted special token stays text here, on purpose."""
    special = texts.tokenizer.all_special_tokens
    if any(str(token) in piece.response_text for token in special):
        return False
    whole = texts.tokenizer(piece.prompt_text + piece.response_text, add_special_tokens=False)
    return tuple(whole["input_ids"]) != (*piece.prompt, *piece.response[:-1])


def left_out(pieces: Sequence[Piece], bound: int) -> Finding:
    rows = distinct([piece.row for piece in pieces])
    ids = distinct([piece.row for piece in pieces if len(piece.prompt) > bound])
    return judged(
        "left_out",
        ids,
        len(rows),
        f"rows left out: their prompts have more than {bound} tokens",
        "Raise data.max_prompt_length, or shorten the prompts.",
        level=fatal(ids, len(rows)),
    )


def distinct(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def pad_is_eos(texts: Base | Texts) -> Finding:
    tokenizer = texts.tokenizer
    same = tokenizer.pad_token_id == texts.eos_id
    token = tokenizer.convert_ids_to_tokens(texts.eos_id)
    said = f"the pad token {'is' if same else 'is not'} the token that ends an answer ({token})"
    harm = "; masks here come from lengths, so it does no harm" if same else ""
    return Finding("pad_is_eos", "ok", int(same), 1, said + harm)


def report(run: RunDir, base: Base) -> None:
    """Inspect the rows of a training run, tell what was found, and stop where nothing is learnt.

    Raises DataError for a finding of level refuse.
    """
    findings, seconds = inspect_rows(base, run.config, run.path)
    run.events.write(
        "preflight", findings=[f.as_json() for f in findings], seconds=round(seconds, 3)
    )
    for finding in findings:
        if finding.level == "warn" and finding.code not in TOLD_BY_ENCODING:
            named = f" (first: {finding.examples[0]})" if finding.examples else ""
            run.events.warning(
                f"preflight_{finding.code}",
                f"{finding.count} of {finding.of} {finding.message}{named}. {finding.todo}",
            )
    reason = refusal(findings)
    if reason:
        raise DataError(reason)


def preflight(folder: Path) -> tuple[list[Finding], float]:
    """The findings about a run folder, with nothing written to it."""
    config = read_config(folder / "config.json")
    texts = load_texts(config.base, turns=config.method not in TEXT_METHODS)
    return inspect_rows(texts, config, folder)


def as_table(findings: Sequence[Finding], seconds: float) -> str:
    """The findings as lines for a terminal."""
    lines = [f"{'level':<7} {'check':<24} {'rows':>15}  what"]
    for f in findings:
        lines.append(f"{f.level:<7} {f.code:<24} {f'{f.count} of {f.of}':>15}  {f.message}")
        if f.examples:
            lines.append(f"{'':<49} e.g. {', '.join(f.examples)}")
        if f.todo:
            lines.append(f"{'':<49} {f.todo}")
    return "\n".join([*lines, f"{len(findings)} checks in {seconds:.2f} s"])
