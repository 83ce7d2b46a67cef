"""What suits a case: the base table cell by cell, numbers by hand, and what only grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.engine.__main__ import main
from training.engine.advisor import Advice, advise
from training.engine.advisor_case import CHANGES, FORMATS, TASKS, Case, case_from_dict
from training.engine.advisor_changes import changed
from training.engine.advisor_presets import ECONOMIES, stages
from training.engine.advisor_ranking import ranked, score
from training.engine.advisor_rules import (
    BASE_TABLE,
    FACTORS,
    GRADES,
    OPTIONS,
    PREFERENCE,
    SUPERVISED,
    TASK_FIT,
    TASK_SOURCES,
    cell,
    few_labels,
    log_level,
    pairs_grade,
    raw_grade,
    size_grade,
    table_grade,
)
from training.engine.config import METHODS, from_dict
from training.engine.errors import BaseModelError, ConfigError
from training.engine.packaged import PACKAGED
from training.engine.planner import Lengths, plan
from training.engine.planner_shapes import shape_of

ROOT = Path(__file__).resolve().parents[2]
#: What the engine will know once classification and raw text have methods of their own.
ALL = tuple(dict.fromkeys([*METHODS, "classify", "pretrain"]))
DEMO = PACKAGED["demo"].config
DEMO_SHAPE = shape_of(DEMO)
LLAMA_8B = {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 131_072, "dtype": "bfloat16",
}  # fmt: skip
BERT = {
    "model_type": "bert", "vocab_size": 30_522, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512,
}  # fmt: skip
EVERYTHING: dict[str, Any] = {
    "domain_distance": 0.5, "knowledge_changes": "monthly", "consistent_format": "some",
    "labelled_examples": 500, "preference_pairs": 500, "raw_tokens": 1_000_000, "private": True,
    "device_gb": 24,
}  # fmt: skip


def case(task: str = "classification", **more: Any) -> Case:
    return case_from_dict({"task": task, **more})


def first(found: Advice) -> str | None:
    return found.first.name if found.first else None


def scores(asked: Case) -> dict[str, float]:
    return {option.name: option.score for option in ranked(asked, ALL)}


# The base table, as it was given.
CELLS = [
    ("domain", "lora", "best"),
    ("domain", "rag", "good"),
    ("domain", "prompting", "weak"),
    ("knowledge", "lora", "retrain needed"),
    ("knowledge", "rag", "best"),
    ("knowledge", "prompting", "best"),
    ("format", "lora", "best"),
    ("format", "rag", "good"),
    ("format", "prompting", "moderate"),
    ("labels", "lora", "LoRA with few examples"),
    ("labels", "rag", "best"),
    ("labels", "prompting", "best"),
    ("privacy", "lora", "open model + fine-tuning"),
    ("privacy", "rag", "open model + RAG"),
    ("privacy", "prompting", "open model only"),
]


@pytest.mark.parametrize(("factor", "option", "said"), CELLS)
def test_a_cell_of_the_base_table_is_what_the_advice_says_and_counts(
    factor: str, option: str, said: str
) -> None:
    row = {
        "domain_distance": "very_different", "knowledge_changes": "daily", "private": True,
        "consistent_format": "strict", "labelled_examples": 20,
    }  # fmt: skip
    reason = next(
        each for each in advise(case("knowledge", **row)).option(option).reasons
        if each.factor == factor
    )  # fmt: skip
    assert reason.says.endswith(said)
    assert reason.grade == GRADES[said] == table_grade(option, factor, 1.0)
    assert "base table" in reason.source


def test_the_base_table_has_no_other_cell() -> None:
    assert {(factor, column) for factor, row in BASE_TABLE.items() for column in row} == {
        (factor, {"lora": "fine-tune"}.get(option, option)) for factor, option, _ in CELLS
    }
    assert (GRADES["best"], GRADES["good"], GRADES["moderate"], GRADES["weak"]) == (3, 2, 1, 0)


def test_few_labels_speak_for_lora_and_not_for_every_fine_tuning() -> None:
    assert table_grade("lora", "labels", 1.0) == table_grade("qlora", "labels", 1.0) == 2
    assert table_grade("full", "labels", 1.0) == table_grade("encoder", "labels", 1.0) == 0
    assert cell("rag_lora", "labels") == "LoRA with few examples / best"


def test_a_combination_has_the_better_of_its_parts_and_needs_the_labels() -> None:
    assert table_grade("rag_lora", "knowledge", 1.0) == 3
    assert table_grade("rag_lora", "format", 1.0) == 3
    assert table_grade("rag_lora", "labels", 1.0) == 2


def test_numbers_by_hand() -> None:
    # 500 is the middle of 50 and 5,000 on a logarithm's scale
    assert (few_labels(50), few_labels(500), few_labels(5000)) == (1.0, pytest.approx(0.5), 0.0)
    assert log_level(0, 1, 10) == 0.0
    assert table_grade("lora", "domain", 0.5) == 2.5  # between good and best
    assert table_grade("prompting", "domain", 0.25) == 2.25  # from best to weak
    asked = case("preference", preference_pairs=3000)
    assert pairs_grade("ppo", asked) == pytest.approx(1.5)  # the middle of 300 and 30,000
    assert pairs_grade("lora", asked) == 1.0
    wide = case("knowledge", raw_tokens=10**7)
    assert raw_grade("pretrain_sft", wide) == pytest.approx(1.5)  # the middle of 1e5 and 1e9
    assert raw_grade("rag", wide) == 3.0
    assert raw_grade("prompting", wide) == 0.0


def test_a_score_is_the_weighted_mean_of_its_grades() -> None:
    found = advise(case("classification", labelled_examples=500, private=True)).option("prompting")
    got = {reason.factor: (reason.grade, reason.weight) for reason in found.reasons}
    # half “few”: between moderate (1) and best (3)
    assert got == {
        "task": (1, 4), "labels": (pytest.approx(2.0), 4), "privacy": (2, 1), "material": (3, 2),
        "size of the base": (2, 1), "effort": (3, 1),
    }  # fmt: skip
    # 4 + 8 + 2 + 6 + 2 + 3 of 3 · 13
    assert found.score == pytest.approx(100 * 25 / 39)
    assert score(found.reasons) == found.score


def test_below_a_billion_parameters_full_fine_tuning_passes_lora() -> None:
    assert (
        size_grade("full", case()) == 3 > size_grade("lora", case()) > size_grade("qlora", case())
    )
    big = case(base="b", base_config=LLAMA_8B)
    assert size_grade("full", big) == 1 < size_grade("lora", big) == size_grade("qlora", big) == 3


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"task": "classification", "labelled_examples": 5000}, "encoder"),
        ({"task": "classification", "labelled_examples": 0}, "prompting"),
        ({"task": "style", "labelled_examples": 1000, "consistent_format": "strict"}, "lora"),
        ({"task": "extraction", "labelled_examples": 800, "consistent_format": "strict",
          "base": "b", "base_config": LLAMA_8B, "device_gb": 12}, "qlora"),
        ({"task": "extraction", "labelled_examples": 20_000, "knowledge_changes": "never"}, "full"),
        ({"task": "knowledge", "raw_tokens": 10**6, "knowledge_changes": "weekly"}, "rag"),
        ({"task": "knowledge", "raw_tokens": 10**9, "knowledge_changes": "never",
          "domain_distance": "very_different", "labelled_examples": 2000}, "pretrain_sft"),
        ({"task": "knowledge", "raw_tokens": 10**7, "knowledge_changes": "weekly",
          "domain_distance": "very_different", "consistent_format": "strict",
          "labelled_examples": 50_000}, "rag_lora"),
        ({"task": "preference", "preference_pairs": 3000}, "dpo"),
        ({"task": "generation"}, "prompting"),
    ],
)  # fmt: skip
def test_a_plain_case_gets_the_option_that_it_is_known_for(
    asked: dict[str, Any], wanted: str
) -> None:
    assert first(advise(case_from_dict(asked), methods=ALL)) == wanted


# What only grows.

CASES = st.fixed_dictionaries(
    {"task": st.sampled_from(sorted(TASKS))},
    optional={
        "domain_distance": st.floats(0, 1),
        "knowledge_changes": st.sampled_from(sorted(CHANGES)),
        "consistent_format": st.sampled_from(sorted(FORMATS)),
        "labelled_examples": st.integers(0, 10**7),
        "preference_pairs": st.integers(0, 10**7),
        "raw_tokens": st.integers(0, 10**12),
        "private": st.booleans(),
        "model_in_house": st.booleans(),
        "device": st.sampled_from(["gpu", "cpu"]),
        "device_bytes": st.integers(10**8, 10**12),
        "device_tflops": st.floats(0.1, 1000),
        "budget_hours": st.floats(0.001, 1000),
        "example_tokens": st.integers(1, 5000),
        "base_config": st.sampled_from([DEMO, LLAMA_8B, BERT]),
    },
)
TUNED = tuple(SUPERVISED)
#: Each input, the options that more of it never hurts, and those that it never helps.
RISING: list[tuple[str, Any, tuple[str, ...], tuple[str, ...]]] = [
    ("domain_distance", st.floats(0, 1), (*TUNED, "pretrain_sft"), ("prompting",)),
    ("knowledge_changes", st.sampled_from(list(CHANGES)), ("rag", "prompting"), ("lora", "full")),
    ("consistent_format", st.sampled_from(list(FORMATS)), TUNED, ("prompting",)),
    ("labelled_examples", st.integers(0, 10**7), (*TUNED, "pretrain_sft"), ("rag", "prompting")),
    ("preference_pairs", st.integers(0, 10**7), PREFERENCE, ()),
    ("raw_tokens", st.integers(0, 10**12), ("rag", "pretrain_sft"), ("prompting",)),
    ("device_bytes", st.integers(10**8, 10**12), tuple(OPTIONS), ()),
    ("budget_hours", st.floats(0.001, 1000), tuple(OPTIONS), ()),
]


def level(name: str, value: Any) -> float:
    return float({**CHANGES, **FORMATS}.get(value, value) if isinstance(value, str) else value)


@pytest.mark.parametrize(("name", "values", "gain", "lose"), RISING, ids=[r[0] for r in RISING])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_more_of_a_factor_never_turns_against_what_it_speaks_for(
    name: str, values: Any, gain: tuple[str, ...], lose: tuple[str, ...], data: Any
) -> None:
    asked = case_from_dict(data.draw(CASES))
    two = [data.draw(values), data.draw(values)]
    less, more = sorted(two, key=lambda value: level(name, value))
    before = {o.name: o for o in ranked(changed(asked, name, less), ALL)}
    after = {o.name: o for o in ranked(changed(asked, name, more), ALL)}
    for option in gain:
        assert after[option].score >= before[option].score - 1e-9
        assert after[option].possible or not before[option].possible
    for option in lose:
        assert after[option].score <= before[option].score + 1e-9


@settings(max_examples=15, deadline=None)
@given(CASES)
def test_every_case_gets_every_option_with_scores_from_0_to_100(data: dict[str, Any]) -> None:
    found = advise(case_from_dict(data), methods=ALL)
    assert {option.name for option in found.options} == set(OPTIONS)
    for option in found.options:
        assert 0 <= option.score <= 100
        assert option.score == pytest.approx(score(option.reasons))
        assert all(reason.says and reason.source for reason in option.reasons)
    places = [option.possible for option in found.options]
    assert places == sorted(places, reverse=True)
    json.dumps(found.as_json(), allow_nan=False)


@settings(max_examples=15, deadline=None)
@given(CASES)
def test_what_would_change_the_advice_does(data: dict[str, Any]) -> None:
    asked = case_from_dict(data)
    found = advise(asked, methods=ALL)
    for option in found.options:
        change = option.nearest
        if change is None:
            continue
        again = ranked(changed(asked, change.name, change.value), ALL)
        now = again[0].name if again[0].possible else None
        assert now == change.first != first(found)
        assert option.name in (change.first, first(found))
    nearest = [o.nearest.distance for o in found.options if o.nearest is not None]
    leader = found.first
    if leader is not None and nearest:
        assert leader.nearest is not None
        assert leader.nearest.distance == min(nearest)


def test_the_nearest_change_is_found_to_the_unit() -> None:
    asked = case("classification", labelled_examples=5000)
    change = advise(asked, methods=ALL).options[0].nearest
    assert change is not None
    assert (change.name, change.first) == ("labelled_examples", "lora")

    def leads(examples: int) -> str:
        return ranked(changed(asked, "labelled_examples", examples), ALL)[0].name

    assert leads(change.value) == "lora"
    assert leads(change.value + 1) == "encoder"


# What cannot be done.


def test_what_has_nothing_to_learn_from_is_ruled_out_and_says_so() -> None:
    found = advise(
        case("preference", labelled_examples=9, preference_pairs=0, raw_tokens=0), methods=ALL
    )
    assert first(found) == "prompting"
    assert [o.name for o in found.options if o.possible] == ["prompting"]
    assert "9 labelled examples" in found.option("lora").blocks[0].says
    assert "0 preference pairs" in found.option("dpo").blocks[0].says
    assert any("collect some first" in note for note in found.notes)


def test_private_data_and_a_model_outside_leave_an_open_encoder_at_most() -> None:
    asked = {"private": True, "model_in_house": False, "labelled_examples": 500}
    labels = advise(case("classification", **asked), methods=ALL)
    assert [o.name for o in labels.options if o.possible] == ["encoder"]
    writing = advise(case("style", **asked), methods=ALL)
    assert writing.first is None
    assert "open model + RAG" in writing.option("rag").blocks[0].says
    # the one thing that would help is found, not written
    assert writing.option("lora").nearest is not None
    assert writing.option("lora").nearest.name in ("model_in_house", "private")
    assert any("open model" in note for note in writing.notes)


def test_a_model_outside_the_house_may_be_prompted() -> None:
    found = advise(case("style", model_in_house=False, private=False, labelled_examples=900))
    assert found.option("prompting").possible
    assert not found.option("lora").possible


def test_an_encoder_writes_no_text() -> None:
    asked = case("style", base="bert", base_config=BERT, labelled_examples=500)
    assert advise(asked, methods=ALL).first is None
    labels = case("classification", base="bert", base_config=BERT, labelled_examples=500)
    possible = {o.name for o in ranked(labels, ALL) if o.possible}
    assert possible == {"encoder", "lora", "qlora", "full"}


def test_a_method_that_the_engine_has_not_rules_its_option_out() -> None:
    found = advise(case("classification", labelled_examples=500), methods=("sft", "sample"))
    assert "no method classify" in found.option("encoder").blocks[0].says
    assert first(found) == "prompting"


def test_an_impossible_budget_and_what_a_possible_one_pays_for() -> None:
    asked = case("style", labelled_examples=100_000, device_tflops=0.01, budget_hours=0.001)
    found = ranked(asked, ALL)
    blocks = {o.name: [b.factor for b in o.blocks] for o in found}
    assert blocks["lora"] == ["budget"]
    assert blocks["prompting"] == []
    some = case("style", labelled_examples=100_000, device_tflops=0.1, budget_hours=5)
    [run] = stages("lora", some)
    steps = run.config["optim"]["max_steps"]
    assert 13 <= steps < 100_000 / 8  # 100 rows by 8 at the least
    assert run.seconds == pytest.approx(5 * 3600, rel=0.05)


def test_a_budget_without_a_speed_is_passed_over_aloud() -> None:
    found = advise(case("style", labelled_examples=500, budget_hours=0.001))
    assert found.option("lora").possible
    assert any("budget was passed over" in note for note in found.notes)


def test_memory_without_a_base_is_passed_over_aloud() -> None:
    found = advise(case("style", labelled_examples=500, base="org/model", device_gb=1))
    assert found.option("lora").fits is None
    assert any("memory was passed over" in note for note in found.notes)
    assert any("config.json was not given" in each for each in found.option("lora").assumes)


def test_an_empty_case_knows_what_it_does_not_know() -> None:
    found = advise(case("generation"), methods=ALL)
    assert any("labelled_examples is not known" in note for note in found.notes)
    assert "10 labelled examples or more" in found.option("lora").assumes


# Presets and hardware.


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize(
    "more",
    [
        {},
        EVERYTHING,
        {"labelled_examples": 0, "device": "cpu", "device_gb": 2},
        {"base": "b", "base_config": LLAMA_8B, "device_gb": 10, "labelled_examples": 9000},
        {"base": "b", "base_config": BERT, "device_gb": 1},
        {"base": "org/unknown"},
        {"example_tokens": 1_000_000},
        {"device_tflops": 10.0, "budget_hours": 1.0, "labelled_examples": 10**9,
         "preference_pairs": 10**9, "raw_tokens": 10**12},
    ],
)  # fmt: skip
def test_every_preset_is_a_run(task: str, more: dict[str, Any]) -> None:
    found = {option: stages(option, case(task, **more)) for option in OPTIONS}
    assert all(found.values())
    for stage in (each for runs in found.values() for each in runs):
        if stage.method in METHODS:
            run = from_dict(json.loads(json.dumps(stage.config)))
            assert run.method == stage.method
        else:
            assert stage.method in ("classify", "pretrain")


def test_a_preset_fits_by_the_planner_and_nothing_else() -> None:
    asked = case("style", labelled_examples=500, device_gb=24, base="b", base_config=LLAMA_8B)
    [run] = stages("lora", asked)
    again = plan(from_dict(run.config), shape_of(LLAMA_8B), 24 * 10**9, lengths=Lengths(mean=256))
    assert run.total_bytes == again.total_bytes
    assert run.fits is again.fits is True
    assert ranked(asked, ALL)[0].fits is True


def test_savings_are_made_before_an_option_is_given_up_and_leave_it_what_it_is() -> None:
    asked = case("style", labelled_examples=500, base="b", base_config=LLAMA_8B)
    [easy] = stages("lora", asked)
    assert easy.total_bytes is not None
    [tight] = stages("lora", changed(asked, "device_bytes", easy.total_bytes - 1))
    assert tight.fits
    assert tight.economies
    assert set(tight.economies) <= {name for each in ECONOMIES for name in each}
    assert tight.config["base"]["quantization"] == "none"
    [never] = stages("lora", changed(asked, "device_bytes", 10**9))
    assert never.fits is False
    blocks = [b for o in ranked(changed(asked, "device_bytes", 10**9)) for b in o.blocks]
    assert any(b.factor == "hardware" and b.source == "the memory planner" for b in blocks)


def test_what_lora_cannot_hold_qlora_may() -> None:
    asked = case("extraction", labelled_examples=800, base="b", base_config=LLAMA_8B, device_gb=12)
    found = {o.name: o for o in ranked(asked, ALL)}
    assert (found["lora"].fits, found["qlora"].fits, found["full"].fits) == (False, True, False)


def test_continued_pretraining_trains_all_weights_where_they_fit() -> None:
    asked = case("knowledge", raw_tokens=10**9, labelled_examples=500, base="b",
                 base_config=LLAMA_8B)  # fmt: skip
    roomy = stages("pretrain_sft", changed(asked, "device_bytes", 10**12))
    assert [s.name for s in roomy] == ["pretrain", "sft"]
    assert roomy[0].config["tuning"] == "full"
    assert roomy[1].config["base"]["source"] == "pretrain/model"
    small = stages("pretrain_sft", changed(asked, "device_bytes", 12 * 10**9))
    assert small[0].config["base"]["quantization"] == "nf4"
    assert small[1].config["adapter"]["init_from"] == "pretrain/adapter"
    assert all(stage.fits for stage in small)


def test_preferences_start_from_what_the_examples_taught() -> None:
    taught = stages("ppo", case("preference", preference_pairs=500, labelled_examples=500))
    assert [s.name for s in taught] == ["sft", "reward", "ppo"]
    assert taught[2].config["adapter"]["init_from"] == "sft/adapter"
    assert taught[2].config["ppo"]["reward_adapter"] == "reward/adapter"
    alone = stages("dpo", case("preference", preference_pairs=500, labelled_examples=0))
    assert [s.name for s in alone] == ["dpo"]


# Input that means harm, or makes no sense.


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "one JSON object"),
        (None, "one JSON object"),
        ({}, "names no task"),
        ({"task": "poetry"}, "task is 'poetry'"),
        ({"task": ["style"]}, "must be of type str"),
        ({"task": "style", "lables": 3}, "unknown fields: lables"),
        ({"task": "style", "shape": {}}, "unknown fields: shape"),
        ({"task": "style", "labelled_examples": -1}, "labelled_examples is -1"),
        ({"task": "style", "labelled_examples": True}, "must be of type int"),
        ({"task": "style", "labelled_examples": 10**30}, "labelled_examples is"),
        ({"task": "style", "labelled_examples": "many"}, "must be of type int"),
        ({"task": "style", "domain_distance": float("nan")}, "domain_distance is nan"),
        ({"task": "style", "domain_distance": 1.5}, "domain_distance is 1.5"),
        ({"task": "style", "domain_distance": "remote"}, "very_different"),
        ({"task": "style", "domain_measured": True}, "domain_measured is True"),
        ({"task": "style", "knowledge_changes": "hourly"}, "knowledge_changes is 'hourly'"),
        ({"task": "style", "consistent_format": True}, "must be of type str"),
        ({"task": "style", "device_gb": 0}, "device_gb is 0"),
        ({"task": "style", "device_gb": float("inf")}, "device_gb is inf"),
        ({"task": "style", "device_gb": 10**400}, "device_gb is"),
        ({"task": "style", "device_gb": 8, "device_bytes": 8}, "one of it and device_bytes"),
        ({"task": "style", "budget_hours": -1.0}, "budget_hours is -1.0"),
        ({"task": "style", "device": "tpu"}, "device is 'tpu'"),
        ({"task": "style", "example_tokens": 0}, "example_tokens is 0"),
        ({"task": "style", "base": ""}, "base is ''"),
        ({"task": "style", "base_config": "/etc/passwd"}, "base_config must be the object"),
    ],
)  # fmt: skip
def test_a_case_that_makes_no_sense_is_refused_naming_the_field(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        case_from_dict(data)


def test_no_file_is_opened_for_what_a_stranger_sent(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(DEMO), encoding="utf-8")
    assert case_from_dict({"task": "style", "base": str(folder)}).shape is None
    with pytest.raises(BaseModelError, match="model_type is 'gpt9'"):
        case_from_dict({"task": "style", "base_config": {"model_type": "gpt9"}})


def test_every_rule_names_its_source() -> None:
    assert set(TASK_FIT) == set(TASK_SOURCES) == set(TASKS)
    assert all(set(row) == set(OPTIONS) for row in TASK_FIT.values())
    sources = [factor.source for factor in FACTORS.values()] + list(TASK_SOURCES.values())
    marks = ("arXiv", "rule of thumb", "base table", "see TASK_SOURCES")
    assert all(any(mark in source for mark in marks) for source in sources)


def test_the_advisor_needs_no_torch() -> None:
    program = (
        "import sys\nfrom training.engine.advisor import advise\n"
        "from training.engine.advisor_case import case_from_dict\n"
        "advise(case_from_dict({'task': 'style', 'labelled_examples': 500, 'device_gb': 8}))\n"
        "print({'torch', 'transformers', 'numpy', 'django'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# The command.


def write_case(tmp_path: Path, **data: Any) -> str:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


def test_the_command_prints_what_it_advises(tmp_path: Path, capsys: Any) -> None:
    path = write_case(tmp_path, task="style", labelled_examples=900, consistent_format="strict",
                      device_gb=8)  # fmt: skip
    assert main(["advise", "--case", path]) == 0
    said = capsys.readouterr().out
    assert "first: fine-tuning with LoRA, because" in said
    assert "strict: best [base table" in said
    assert "nearest change: " in said
    assert "run: sft, " in said
    assert ", fits" in said


def test_the_command_as_json_says_what_the_function_does(tmp_path: Path, capsys: Any) -> None:
    data = {"task": "style", "labelled_examples": 900}
    assert main(["advise", "--case", write_case(tmp_path, **data), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("measured_distance") is None
    assert said == json.loads(json.dumps(advise(case_from_dict(data)).as_json()))


def test_the_command_prints_the_runs_of_an_option(tmp_path: Path, capsys: Any) -> None:
    path = write_case(tmp_path, task="preference", preference_pairs=500, labelled_examples=0)
    assert main(["advise", "--case", path, "--preset", "ppo"]) == 0
    reward, policy = json.loads(capsys.readouterr().out)
    assert (from_dict(reward).method, from_dict(policy).method) == ("reward", "ppo")


def test_the_command_takes_a_base_by_its_config(tmp_path: Path, capsys: Any) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA_8B), encoding="utf-8")
    path = write_case(tmp_path, task="extraction", labelled_examples=800, device_gb=12)
    assert main(["advise", "--case", path, "--base", str(config), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["case"]["base_parameters"] == 8_030_261_248
    assert said["first"] == "qlora"


def test_the_command_fails_where_nothing_can_be_done(tmp_path: Path, capsys: Any) -> None:
    path = write_case(tmp_path, task="style", private=True, model_in_house=False)
    assert main(["advise", "--case", path]) == 1
    assert "nothing can be done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "one JSON object"),
        (b'{"task": "style", "base": 3}', "base is 3"),
    ],
)
def test_the_command_refuses_a_file_that_is_no_case(
    tmp_path: Path, capsys: Any, content: bytes, said: str
) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(content)
    assert main(["advise", "--case", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_the_command_refuses_what_is_not_there(tmp_path: Path, capsys: Any) -> None:
    assert main(["advise", "--case", str(tmp_path / "none.json")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    path = write_case(tmp_path, task="style")
    assert main(["advise", "--case", path, "--general", path]) == 1
    assert "--text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 10**400}, "parameter count"),
        ({"num_hidden_layers": 10**4000}, "parameter count"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings is 'many'"),
        ({"max_position_embeddings": -5}, "max_position_embeddings is -5"),
        ({"model_type": ["llama"]}, "model_type is"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"num_local_experts": 8}, "mixture of 8 experts"),
    ],
)
def test_a_base_that_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises((BaseModelError, ConfigError), match=said):
        case("style", base="b", base_config={**DEMO, **change})


def test_the_smallest_numbers_overflow_nothing() -> None:
    asked = case("preference", labelled_examples=10**15, preference_pairs=10**15,
                 raw_tokens=10**15, device_tflops=1e-6, budget_hours=1e-6, device_bytes=1,
                 base="b", base_config={**DEMO, "max_position_embeddings": 1})  # fmt: skip
    found = advise(asked, methods=ALL)
    assert found.first is None
    json.dumps(found.as_json(), allow_nan=False)


def test_a_budget_is_shared_by_the_runs_of_an_option() -> None:
    # so slow that a budget of a hundred hours is short, and long enough for 100 rows
    asked = case("preference", labelled_examples=10**7, preference_pairs=10**7, device_tflops=1.0,
                 budget_hours=100.0)  # fmt: skip
    runs = stages("dpo", asked)
    assert [run.name for run in runs] == ["sft", "dpo"]
    assert all("max_steps" in run.config["optim"] for run in runs)
    taken = [run.seconds for run in runs if run.seconds is not None]
    assert taken == [pytest.approx(50 * 3600, rel=0.01)] * 2
