from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import set_client_factory
from huggingface_hub.utils import _http

from tests.engine.labelled import WORDS
from tests.engine.tiny import save_encoder, save_tiny, save_words
from training.engine.config import BaseConfig
from training.engine.models import Base, load_base


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _engine_cache(tmp_path_factory: pytest.TempPathFactory):
    """Converted bases and cached log-probs of the tests stay out of the user's cache."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ENGINE_CACHE_DIR", str(tmp_path_factory.mktemp("engine-cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """`main` takes over the process's signals; pytest wants its own back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _stock_hub_client() -> Iterator[None]:
    """A run has the Hub library's own client; tests of pushes in this process have another."""
    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(_http.default_client_factory)
    yield
    set_client_factory(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def base(tiny: Path) -> Base:
    """The tiny model, loaded anew for each test (adapters change it)."""
    return load_base(BaseConfig(source=str(tiny)))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("models") / "words", words=WORDS, num_hidden_layers=2)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "bert", "bert", words=WORDS)
