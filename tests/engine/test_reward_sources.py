"""Where PPO's reward may come from: an HTTP endpoint on a real socket, and another model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from tests.engine.test_resume import curve, killed_after
from tests.engine.tiny import make_run, result, save_words, user
from training.engine import posting
from training.engine.__main__ import main
from training.engine.config import PPOConfig
from training.engine.endpoint import Endpoint, check_reward_url
from training.engine.errors import ConfigError, Interrupted, RewardSourceError
from training.engine.stopping import stop_requested

ANSWERS = [{"prompt": user("w1"), "response": "w2 w3", "finished": True}] * 3
WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("models") / "words")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "PAUSE_S", 0.01)


class Server:
    """An endpoint on this machine; `reply` makes (status, body) of each request's answers."""

    def __init__(self, reply: Callable[[list[dict[str, Any]]], tuple[int, Any]]) -> None:
        self.requests: list[list[dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body["answers"])
                status, said = reply(body["answers"])
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", server.url)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/score"


@contextmanager
def serving(reply: Callable[[list[dict[str, Any]]], tuple[int, Any]]) -> Iterator[Server]:
    server = Server(reply)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def ask(url: str, *, timeout_s: float = 5.0, retries: int = 1) -> list[float]:
    return Endpoint(url=url, timeout_s=timeout_s, retries=retries).scores(ANSWERS)


def test_an_endpoint_is_told_prompt_answer_and_whether_it_ended() -> None:
    with serving(lambda asked: (200, {"scores": [1, -2.5, 0.25]})) as server:
        assert ask(server.url) == [1.0, -2.5, 0.25]
    assert server.requests == [ANSWERS]


@pytest.mark.parametrize(
    ("status", "body", "said", "tries"),
    [
        (200, {"scores": [1.0, 2.0]}, "2 scores for 3 answers", 1),
        (200, {"scores": "1 2 3"}, "no list of scores for 3 answers", 1),
        (200, {"scores": [1.0, None, 2.0]}, "score 2 of 3 is None", 1),
        (200, {"scores": [1.0, 2.0, True]}, "score 3 of 3 is True", 1),
        (200, b'{"scores": [NaN, 1, 2]}', "score 1 of 3 is nan", 1),
        (200, b'{"scores": [1, 1e999, 2]}', "score 2 of 3 is inf", 1),
        (200, {"score": [1.0, 2.0, 3.0]}, "not JSON of the form", 1),
        (200, b"<html>", "not JSON of the form", 1),
        (200, b"[" * 100_000, "not JSON of the form", 1),
        (200, b" " * 1_000_001, "exceeds 1000000 bytes", 1),
        (204, b"", "status 204 instead of 200", 1),
        (404, b"", "status 404", 1),
        (307, b"", "status 307, a redirect, which is not followed", 1),
        (503, b"", "status 503 (3 tries)", 3),
    ],
)
def test_what_is_no_score_is_refused_naming_the_endpoint(
    status: int, body: Any, said: str, tries: int
) -> None:
    with serving(lambda asked: (status, body)) as server:
        with pytest.raises(RewardSourceError) as error:
            ask(server.url, retries=2)
        assert server.url in str(error.value)
        assert said in str(error.value)
    assert len(server.requests) == tries


def test_a_failure_that_passes_is_tried_again() -> None:
    statuses = iter([503, 429, 200])
    with serving(lambda asked: (next(statuses), {"scores": [0.0, 0.0, 0.0]})) as server:
        assert ask(server.url, retries=2) == [0.0, 0.0, 0.0]
    assert len(server.requests) == 3


def test_an_endpoint_that_is_gone_is_named_with_what_the_system_says() -> None:
    with serving(lambda asked: (200, {})) as server:
        pass
    with pytest.raises(RewardSourceError, match=r"refused \(2 tries\)") as error:
        ask(server.url)
    assert server.url in str(error.value)


def test_a_reply_that_does_not_come_or_trickles_is_given_up() -> None:
    held = threading.Event()

    def silent(asked: list[dict[str, Any]]) -> tuple[int, Any]:
        held.wait(20)
        return 200, {"scores": [0.0, 0.0, 0.0]}

    began = time.monotonic()
    with serving(silent) as server:
        with pytest.raises(RewardSourceError, match=r"no whole reply within 0\.2 s \(2 tries\)"):
            ask(server.url, timeout_s=0.2)
        held.set()
    assert time.monotonic() - began < 15


def test_a_signal_is_obeyed_while_an_endpoint_is_silent() -> None:
    held = threading.Event()

    def silent(asked: list[dict[str, Any]]) -> tuple[int, Any]:
        stop_requested.set()
        held.wait(20)
        return 200, {}

    with serving(silent) as server:
        try:
            with pytest.raises(Interrupted):
                ask(server.url, timeout_s=20.0)
        finally:
            stop_requested.clear()
            held.set()


@pytest.mark.parametrize(
    "url",
    [
        "http://reward.example/score",
        "http://127.0.0.1.example/score",
        "ftp://127.0.0.1/score",
        "file:///etc/passwd",
        "https://",
        "https://me:secret@reward.example/",
        "https://reward.example/#part",
        "http://[::1",
        "http://10.0.0.1/",
        "127.0.0.1:80",
    ],
)
def test_answers_leave_this_machine_encrypted_or_not_at_all(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.reward_url"):
        PPOConfig(reward_url=url)


@pytest.mark.parametrize(
    "url", ["https://reward.example/score", "http://localhost:8080/", "http://[::1]:9/s"]
)
def test_addresses_that_may_be_asked(url: str) -> None:
    check_reward_url(url)


def asked(words: Path, **source: Any) -> dict[str, Any]:
    return {
        "method": "ppo",
        "threads": 1,
        "base": {"source": str(words)},
        "optim": {"lr": 2e-2},
        "checkpoint_every": 1,
        "checkpoint_keep": 0,
        "ppo": {
            "updates": 2, "episodes_per_update": 4, "minibatch_size": 2, "epochs": 1,
            "max_new_tokens": 4, "eval_prompts": 3, "value": "own_adapter", **source,
        },
    }  # fmt: skip


PROMPTS = [{"id": str(n), "prompt": user(f"w{n}")} for n in range(4)]


def test_a_run_that_goes_on_asks_for_no_score_twice_and_ends_the_same(
    words: Path, tmp_path: Path
) -> None:
    # an endpoint that never says the same twice: its scores must be kept, not asked for again
    given = iter(range(10_000))
    config = asked(words, reward_url="")

    with serving(lambda answers: (200, {"scores": [next(given) % 7 for _ in answers]})) as server:
        config["ppo"]["reward_url"] = server.url
        whole = make_run(tmp_path / "whole", config, prompts=PROMPTS)
        assert main(["run", str(whole)]) == 0, result(whole)["reason"]
        rolled = len({json.dumps(answer) for asked in server.requests for answer in asked})
        assert rolled == sum(len(asked) for asked in server.requests)
        assert curve(whole)[1]["reward/mean"] != curve(whole)[2]["reward/mean"]
        before = len(server.requests)
        # inside the first update, and between the two
        cuts = [killed_after(whole, step, tmp_path / f"cut-{step}") for step in (1, 2)]
        for cut in cuts:
            assert main(["run", str(cut)]) == 0, result(cut)["reason"]
        assert len(server.requests) == before
    for cut in cuts:
        assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
        assert curve(cut) == curve(whole)
        assert result(cut)["metrics"] == result(whole)["metrics"]


def test_a_run_whose_endpoint_dies_says_so_and_goes_on_when_it_is_back(
    words: Path, tmp_path: Path
) -> None:
    def scores(answers: list[dict[str, Any]]) -> tuple[int, Any]:
        return 200, {"scores": [float(len(answer["response"])) for answer in answers]}

    requests: list[int] = []

    def dies(answers: list[dict[str, Any]]) -> tuple[int, Any]:
        requests.append(len(answers))
        return scores(answers) if len(requests) < 3 else (500, b"")

    with serving(dies) as server:
        config = asked(words, reward_url=server.url, reward_url_retries=0)
        folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
        assert main(["run", str(folder)]) == 1
    assert "status 500" in result(folder)["reason"]
    assert server.url in result(folder)["reason"]
    (folder / "result.json").unlink()
    server.http = ThreadingHTTPServer(
        ("127.0.0.1", server.http.server_port), server.http.RequestHandlerClass
    )
    requests.clear()
    requests += [-9] * -10  # the endpoint is back: it counts from the start
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    try:
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
    assert result(folder)["steps"] == 2


def save_classifier(words: Path, folder: Path, *, labels: int = 1, seed: int = 3) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_labels": labels}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, **shape, **heads)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_another_model_scores_what_its_own_template_makes_of_an_answer(
    words: Path, tmp_path: Path
) -> None:
    scorer = save_classifier(words, tmp_path / "scorer")
    config = asked(words, reward_model=str(scorer))
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    sample = next(
        json.loads(line)
        for path in folder.glob("attempts/*/events.jsonl")
        for line in path.read_text().splitlines()
        if '"sample"' in line
    )
    model = LlamaForSequenceClassification.from_pretrained(scorer)
    tokenizer = AutoTokenizer.from_pretrained(scorer)
    said = [*sample["prompt"], {"role": "assistant", "content": sample["text"]}]
    text = tokenizer.apply_chat_template(said, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert sample["reward"] == pytest.approx(model(input_ids=ids).logits.item(), abs=1e-6)
    # it is part of what the run was begun with
    (folder / "result.json").unlink()
    save_classifier(words, scorer, seed=4)
    assert main(["run", str(folder)]) == 1
    assert "ppo.reward_model has changed since the run began" in result(folder)["reason"]


def test_what_is_no_reward_model_is_refused(words: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    own_code = save_classifier(words, tmp_path / "code")
    config = json.loads((own_code / "config.json").read_text())
    (own_code / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    silent = save_classifier(words, tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    cases = {
        str(tmp_path / "absent"): "no such folder",
        str(pickled): "only pickled weights",
        str(own_code): "code of its own",
        str(words): "no weights for score.weight",
        str(save_classifier(words, tmp_path / "two", labels=2)): "2 numbers instead of a score",
        str(silent): "no chat template",
        "demo": "no reward model: it is a model that comes with the engine",
    }
    for number, (source, said) in enumerate(cases.items()):
        config = asked(words, reward_model=source)
        folder = make_run(tmp_path / f"run-{number}", config, prompts=PROMPTS)
        assert main(["run", str(folder)]) == 1
        assert said in result(folder)["reason"], source
        assert "ppo.reward_model" in result(folder)["reason"], source
