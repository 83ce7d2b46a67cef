"""The command line: what it takes, what it says, and that every end leaves result.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import events, make_run, preference_row, result, save_tiny, user
from training.engine.__main__ import main
from training.engine.packaged import PACKAGED

TRAIN = [preference_row(n) for n in range(4)]
PROMPTS = [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(3)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MB; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def asked(base: Path | str, method: str = "dpo", **more: Any) -> dict[str, Any]:
    return {"method": method, "base": {"source": str(base)}, **more}


def said(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["run", "sample", "2 wrong usage", "75 interrupted"]),
        (["run", "--help"], ["RUN_DIR", "config.json", "--attempt", "--heartbeat-fd"]),
        (["sample", "--help"], ["--prompts", "--top-p", "samples.jsonl", "0: most probable"]),
        (["merge", "--help"], ["--adapter", "--quantization", "merge.json", "logits"]),
    ],
)
def test_help_says_what_there_is(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["train"], "invalid choice: 'train'"),
        (["run"], "RUN_DIR"),
        (["run", "x", "--attempts", "2"], "unrecognized arguments"),
        (["run", "x", "--heartbeat-fd", "two"], "invalid int value: 'two'"),
        (["sample", "--prompts", "p"], "--out"),
        (["sample", "--prompts", "p", "--out", "o", "--quantization", "q4"], "invalid choice"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_it(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    check = (
        "import sys\nfrom training.engine.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        ('{"method": "dpo", "base": {"source": "demo"}, "bogus": 1}', "bogus"),
        ('{"method": "dpo", "base": {"source": "demo"}, "seed": "one"}', "seed is 'one'"),
        ('{"method": "dpo", "base": {"source": "demo"}, "optim": {"lr": NaN}}', "optim.lr is nan"),
        ('{"method": "dpo", "base": {"source": "demo"}, "schema": 2}', "schema is 2"),
    ],
)
def test_a_wrong_config_lands_in_the_result(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert main(["run", str(tmp_path)]) == 1
    assert words in said(capsys)
    found = result(tmp_path)
    assert found["status"] == "refused"
    assert words in found["reason"]


def test_a_wrong_config_leaves_an_earlier_result_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    (tmp_path / "result.json").write_text('{"status": "done"}', encoding="utf-8")
    assert main(["run", str(tmp_path)]) == 1
    assert result(tmp_path) == {"status": "done"}
    assert said(capsys)


def test_a_refused_folder_says_how_to_try_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", asked("/no/such/base"), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    assert "no such folder" in result(folder)["reason"]
    assert main(["run", str(folder)]) == 1
    shown = said(capsys)
    assert "was refused" in shown
    assert "result.json" in shown


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "holds no config.json"),
        (lambda path: path.write_text("text", encoding="utf-8"), "holds no config.json"),
        (lambda path: (path / "config.json").mkdir(parents=True), "holds no config.json"),
    ],
    ids=["missing", "a file", "config.json is a folder"],
)
def test_what_is_no_run_folder_is_refused(
    make: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "run")
    assert main(["run", str(tmp_path / "run")]) == 1
    assert words in said(capsys)


def test_an_attempt_cannot_leave_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", asked("demo"), train=TRAIN)
    assert main(["run", str(folder), "--attempt", "../../x"]) == 1
    assert "letters, digits and dashes" in said(capsys)


def test_a_pipe_that_is_not_open_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Unwatched, the run would outlive its supervisor and write beside the next attempt.
    folder = make_run(tmp_path / "run", asked("demo"), train=TRAIN)
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    assert main(["run", str(folder), "--heartbeat-fd", str(read_end)]) == 1
    assert f"--heartbeat-fd {read_end} is not open" in said(capsys)


def test_data_that_cannot_be_read_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", asked(tiny))
    (folder / "data" / "train.jsonl").mkdir()
    assert main(["run", str(folder)]) == 1
    assert "train.jsonl" in said(capsys)
    assert result(folder)["status"] == "refused"


def test_an_unexpected_error_leaves_its_class_a_result_and_a_traceback_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A base with fewer embeddings than its tokenizer has tokens: torch's own IndexError.
    base = save_tiny(tmp_path / "base", vocab_size=16)
    folder = make_run(tmp_path / "run", asked(base), train=TRAIN)
    assert main(["run", str(folder), "--attempt", "one"]) == 1
    assert "attempts/one/traceback.txt" in said(capsys)
    found = result(folder)
    assert (found["status"], found["cause"]) == ("failed", "bug")
    assert found["reason"].startswith("IndexError: ")
    written = (folder / "attempts/one/traceback.txt").read_text(encoding="utf-8")
    assert written.startswith("Traceback")
    assert events(folder)[-1]["status"] == "failed"


def test_a_read_only_folder_is_refused_in_a_sentence(
    tiny: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(small_disk / "run", asked(tiny), train=TRAIN)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert main(["run", str(folder)]) == 1
    assert "cannot be written: Read-only file system" in said(capsys)


def test_a_full_disk_is_refused_with_what_is_missing(
    tiny: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(small_disk / "run", asked(tiny, checkpoint_every=1), train=TRAIN)
    assert main(["run", str(folder)]) == 74
    shown = said(capsys).splitlines()[-1]
    assert "3 checkpoints of" in shown
    assert "MB left; make room" in shown
    assert not (folder / "result.json").exists()


def test_a_disk_without_a_single_byte_left_still_ends_in_a_sentence(
    tiny: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(small_disk / "run", asked(tiny), train=TRAIN)
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        for size in (1 << 16, 512, 1):
            try:
                while filler.write(b"x" * size) == size:
                    continue
            except OSError:
                continue
    assert main(["run", str(folder)]) == 74
    assert "No space left" in said(capsys)


def test_a_model_cache_without_room_is_refused(
    small_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(small_disk / "cache"))
    folder = make_run(tmp_path / "run", asked(PACKAGED["demo"].locate()), train=TRAIN)
    assert main(["run", str(folder)]) == 74
    shown = said(capsys).splitlines()[-1]
    assert "converting" in shown
    assert "make room" in shown


def test_a_model_cache_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    folder = make_run(tmp_path / "run", asked("demo"), train=TRAIN)
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert found["status"] == "refused"
    assert "ENGINE_CACHE_DIR" in found["reason"]


def test_a_log_prob_cache_that_cannot_be_written_costs_time_and_no_run(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    folder = make_run(tmp_path / "run", asked(tiny), train=TRAIN)
    assert main(["run", str(folder)]) == 0
    codes = [event["code"] for event in events(folder) if event["kind"] == "warning"]
    assert codes == ["not_cached"]


def test_a_damaged_log_prob_cache_is_computed_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    weights = []
    for name in ("one", "two"):
        folder = make_run(tmp_path / name, asked(tiny), train=TRAIN)
        assert main(["run", str(folder)]) == 0
        weights.append((folder / "adapter/adapter_model.safetensors").read_bytes())
        (cached,) = (tmp_path / "cache" / "logps").iterdir()
        cached.write_bytes(b"rubbish")
    assert weights[0] == weights[1]


def test_sample_answers_a_file_of_prompts(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    lines = "".join(json.dumps(row) + "\n" for row in PROMPTS)
    prompts.write_text(lines, encoding="utf-8")
    command = ["sample", "--base", str(tiny), "--prompts", str(prompts), "--out", str(out)]
    command += ["--max-new-tokens", "4", "--samples-per-prompt", "2", "--top-p", "0.9"]
    assert main(command) == 0
    assert str(out / "samples.jsonl") in capsys.readouterr().out
    rows = (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["prompt_id"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    assert main(command) == 1
    assert "give a new folder" in said(capsys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--prompts", "/no/such/file"], "/no/such/file does not exist"),
        (["--temperature", "-1"], "sample.temperature is -1.0"),
        (["--samples-per-prompt", "0"], "sample.samples_per_prompt is 0"),
        (["--adapter", "/no/such/adapter"], "holds no adapter_model.safetensors"),
    ],
)
def test_sample_refuses_in_a_sentence(
    change: list[str],
    words: str,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(PROMPTS[0]) + "\n", encoding="utf-8")
    command = ["sample", "--base", str(tiny), "--prompts", str(prompts)]
    assert main([*command, "--out", str(tmp_path / "out"), *change]) == 1
    assert words in said(capsys)
