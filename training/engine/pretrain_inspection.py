"""What is wrong with raw documents before a base is trained on them; see `inspection`."""

from __future__ import annotations

from collections.abc import Sequence

from training.engine.inspection import Finding, Row, digest_of, fatal, judged


def inspect_documents(
    train: Sequence[Row],
    test: Sequence[Row] = (),
    general: Sequence[Row] = (),
    replay: Sequence[Row] = (),
) -> list[Finding]:
    """The checks of documents, none of which needs a tokenizer. replay: trained on as well."""

    def read(rows: Sequence[Row]) -> list[tuple[str, str]]:
        """(id, what tells its text from others) of every row."""
        return [(str(r.get("id", n)), digest_of(r.get("text"))) for n, r in enumerate(rows, 1)]

    seen: set[str] = set()
    again = []
    for name, text in read(train):
        again += [name] if text in seen else []
        seen.add(text)
    blank = [str(r.get("id", n)) for n, r in enumerate(train, 1) if not str(r.get("text")).strip()]
    trained = seen | {text for _, text in read(replay)}
    measured = [*read(test), *read(general)]
    return [
        judged(
            "blank",
            blank,
            len(train),
            "documents without text",
            "They teach nothing and are left out.",
            level=fatal(blank, len(train)),
        ),
        judged(
            "duplicate_documents",
            again,
            len(train),
            "documents that repeat an earlier one exactly",
            "Each is learnt as often as it stands there: leave copies out.",
        ),
        judged(
            "leaked",
            [name for name, text in measured if text in trained],
            len(measured),
            "documents that perplexity is measured on are trained on too",
            "What is measured on them is not held out: leave them out of one of the two.",
        ),
    ]
