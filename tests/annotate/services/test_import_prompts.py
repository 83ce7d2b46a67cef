from __future__ import annotations

from pathlib import Path

import pytest

from annotate.errors import AnnotateError, ImportRefused
from annotate.models import Prompt, PromptSet
from annotate.services.ingest import import_prompts
from tests.data import write_rows
from tests.people import People


def asked(prompt_set: PromptSet) -> list[str]:
    entries = prompt_set.entries.select_related("prompt")
    return [entry.prompt.messages[-1]["content"] for entry in entries]


def test_the_prompts_of_a_file_become_a_set_in_their_order_each_once(
    people: People, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [{"prompt": text} for text in ("b", "a", "b", "c")])
    prompts = import_prompts(workspace=people.workspace, path=file, name="fresh", use="fresh")
    assert (prompts.version, prompts.use, asked(prompts)) == (1, "fresh", ["b", "a", "c"])


def test_a_new_version_comes_only_with_another_list_or_use(people: People, tmp_path: Path) -> None:
    def versions(*texts: str, use: str = "fresh") -> int:
        file = write_rows(tmp_path / "f.jsonl", [{"prompt": text} for text in texts])
        found = import_prompts(workspace=people.workspace, path=file, name="mine", use=use)
        return found.version

    assert versions("a", "b") == 1
    assert versions("a", "b") == 1
    assert versions("b", "a") == 2
    assert versions("b", "a", use="train") == 3
    assert versions("a", "b", use="train") == 4
    assert PromptSet.objects.count() == 4
    assert Prompt.objects.count() == 2


def test_workspaces_share_nothing(people: People, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}])
    for workspace in (people.workspace, people.elsewhere):
        found = import_prompts(workspace=workspace, path=file, name="mine", use="train")
        assert (found.version, found.workspace) == (1, workspace)
        assert {prompt.workspace for prompt in found.prompts.all()} == {workspace}


def test_a_bad_row_refuses_the_file_unless_it_may_be_skipped(
    people: People, tmp_path: Path
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}, {"prompt": ""}])
    given = {"workspace": people.workspace, "path": file, "name": "mine", "use": "train"}
    with pytest.raises(ImportRefused, match="line 2: the prompt is empty"):
        import_prompts(**given)
    assert not Prompt.objects.exists()
    assert asked(import_prompts(**given, skip_bad=True)) == ["a"]


@pytest.mark.parametrize(
    ("name", "use", "reason"),
    [
        ("two words", "train", "cannot be a prompt set's short name"),
        ("mine", "fun", "use 'fun' is none of"),
    ],
)
def test_an_impossible_name_or_use_is_refused(
    people: People, tmp_path: Path, name: str, use: str, reason: str
) -> None:
    file = write_rows(tmp_path / "f.jsonl", [{"prompt": "a"}])
    with pytest.raises(AnnotateError, match=reason):
        import_prompts(workspace=people.workspace, path=file, name=name, use=use)


def test_a_file_of_blank_lines_is_refused(people: People, tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    file.write_text("\n\n")
    with pytest.raises(ImportRefused, match="holds no prompts"):
        import_prompts(workspace=people.workspace, path=file, name="mine", use="train")
