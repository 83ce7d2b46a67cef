"""An uploaded file as a path, for as long as the services read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser

from annotate.errors import ImportRefused
from annotate.uploads import received
from rlhf_platform.accounts.api.endpoint import Endpoint, Strict


class UploadIn(Strict):
    file = serializers.FileField(help_text=".jsonl, .jsonl.gz or .parquet")
    skip_bad = serializers.BooleanField(
        default=False, help_text="Leave out rows that cannot be used instead of refusing the file"
    )


class UploadEndpoint(Endpoint):
    parser_classes: Any = (MultiPartParser,)
    max_body = settings.MAX_UPLOAD_BYTES


@contextmanager
def stored(upload: UploadedFile) -> Iterator[Path]:
    """The upload on disk; an ImportRefused from within the block speaks of fields, not options."""
    try:
        with received(upload) as path:
            yield path
    except ImportRefused as error:
        raise ImportRefused(worded(error, upload.name or "file"), error.bad_rows) from error


def worded(error: ImportRefused, name: str) -> str:
    """The refusal for somebody who sent a form, not a command line; lines are in `bad_rows`."""
    if error.bad_rows:
        return (
            f"{name}: {len(error.bad_rows)} rows cannot be used (first: {error.bad_rows[0]}), so "
            "nothing was imported; skip_bad=true leaves such rows out where others are usable"
        )
    return str(error).replace("--format ", "format=")
