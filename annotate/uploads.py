"""A file that somebody sent through a page or the API, on disk for as long as an import reads it.

How large it may be was checked before it was received (BodyLimitMiddleware, UploadEndpoint), and
what it unpacks to is bounded where it is read (annotate/formats/reading.py).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.files.uploadedfile import UploadedFile

from annotate.errors import ImportRefused

#: One ending or two (.txt.gz): they tell the format.
ENDING = re.compile(r"([.][A-Za-z0-9]{1,10}){1,2}\Z")


@contextmanager
def received(upload: UploadedFile) -> Iterator[Path]:
    """The upload as a file under a name of ours with its own ending.

    An ImportRefused from within the block names the upload, not our path: people know their file
    by its name.
    """
    name = upload.name or "file"
    ending = ENDING.search(name)
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / f"upload{ending[0] if ending else ''}"
        with path.open("wb") as out:
            for chunk in upload.chunks():
                out.write(chunk)
        try:
            yield path
        except ImportRefused as error:
            words = str(error).replace(str(path), name)
            raise ImportRefused(words, error.bad_rows) from error
