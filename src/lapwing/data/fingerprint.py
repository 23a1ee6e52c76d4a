"""Telling whether a recording on disk is still the one it was, without reading all of it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fingerprint(path: Path) -> str:
    """Names, sizes and times of change of a file, or of all files of a folder that are not hidden."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        name = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            status = file.stat()
            digest.update(repr((str(name), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:24]
