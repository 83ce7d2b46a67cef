"""From people's labels to a classifier: the engine trains on what a label project exports."""

import json
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from annotate.export.writers import export_snapshot
from annotate.services.freezing import freeze_snapshot
from annotate.services.texts import import_texts
from tests.annotate.services.test_labels import label_project, say_of
from tests.data import SMS, labelled_messages
from tests.factories import make_annotator
from tests.people import People


def test_a_label_export_trains_a_classifier_as_it_is(people: People, tmp_path: Path) -> None:
    """Three people label 40 real messages; the third is wrong on every fifth, which then weighs
    2/3 of the others."""
    project = label_project(people, overlap=3)
    import_texts(project=project, path=SMS)
    known = {row["text"]: row["label"] for row in labelled_messages()}
    other = {"ham": "spam", "spam": "ham"}
    doubted = {text for number, text in enumerate(known) if number % 5 == 0}
    wrong = known | {text: other[known[text]] for text in doubted}
    for name, said in (("ann", known), ("ben", known), ("cat", wrong)):
        say_of(project, make_annotator(people.workspace, name=name), said)
    snapshot = freeze_snapshot(project=project, test_fraction=0.3)
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format="jsonl")

    config = {
        "method": "classify",
        "tuning": "full",
        "base": {"source": "minilm"},
        "optim": {"lr": 2e-4, "batch_size": 8, "epochs": 4},
        "threads": 1,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "training.engine", "run", str(folder)]
    done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["rows"] == snapshot.n_train
    assert result["classification"]["rows"] == snapshot.n_test
    assert result["classification"]["labels"] == ["ham", "spam"]
    assert (folder / result["model"] / "model.safetensors").is_file()
    metrics = result["metrics"]
    assert metrics["classify/accuracy"] > metrics["classify/majority"]
    rows = [json.loads(line) for line in (folder / "data/train.jsonl").read_text().splitlines()]
    assert {row["weight"] for row in rows} == {0.666667, 1.0}
