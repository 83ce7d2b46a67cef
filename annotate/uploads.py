"""A file that somebody sent through a form, on disk for as long as an import reads it."""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.files.uploadedfile import UploadedFile

from annotate.errors import ImportRefused

#: Larger files come through the command line, where nobody waits for a page.
MAX_UPLOAD_MB = 64
#: What a gzipped upload may unpack to.
MAX_UNPACKED_MB = 512
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".txt", ".csv")
MB = 1_000_000


@contextmanager
def received(upload: UploadedFile) -> Iterator[Path]:
    """The upload as a file under its own name. Raises ImportRefused for one that is too large."""
    name = (
        re.sub(r"[^\w.-]+", "_", Path(upload.name or "").name)[-80:].lstrip(".") or "upload.jsonl"
    )
    if (upload.size or 0) > MAX_UPLOAD_MB * MB:
        raise ImportRefused(
            f"{name} has {(upload.size or 0) / MB:.0f} MB; a form takes {MAX_UPLOAD_MB} MB. "
            "Import it with manage.py import_comparisons, or split it"
        )
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / name
        with path.open("wb") as out:
            for chunk in upload.chunks():
                out.write(chunk)
        if path.suffix == ".gz":
            path = unpacked(path)
        try:
            yield path
        except ImportRefused as error:
            # People know their file by its name, not by where we kept it for a moment.
            words = str(error).replace(f"{folder}/", "")
            raise ImportRefused(words, error.bad_rows) from error


def unpacked(path: Path) -> Path:
    """A gzipped file unpacked beside itself, at most MAX_UNPACKED_MB of it."""
    target = path.with_suffix("")
    written = 0
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as out:
            while chunk := packed.read(MB):
                written += len(chunk)
                if written > MAX_UNPACKED_MB * MB:
                    raise ImportRefused(
                        f"{path.name} unpacks to more than {MAX_UNPACKED_MB} MB; split it, or "
                        "import it with manage.py import_comparisons"
                    )
                out.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise ImportRefused(f"{path.name} is not a whole gzip file ({error})") from None
    return target
