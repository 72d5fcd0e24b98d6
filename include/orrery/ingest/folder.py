"""Files in a folder of this machine."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from orrery.config.stores import Place
from orrery.ingest.errors import FileError
from orrery.ingest.stores import BLOCK, Digesting, LandingFile, Store, vanished, version

# Below a folder that files are written to: what is not complete yet, and notes.
OWN = "_orrery"
# Nobody has written to it for so long.
_ABANDONED_SECONDS = 86400


class FolderStore(Store):
    """The files below a folder."""

    steady = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._root = Path(place.path)
        self._fs: Any = LocalFileSystem()  # type: ignore[no-untyped-call]

    def glob(self, pattern: str, *, without: str | None = None) -> list[LandingFile]:
        """As in Store; what is no file, such as a pipe, is left out.

        Raises FileError for a link that leads out of the folder, and for a name that is not UTF-8.
        """
        found = self._fs.glob(f"{glob.escape(str(self._root))}/{pattern}")
        files = (self._file(Path(path)) for path in found)
        return [file for file in files if file and file.name.partition("/")[0] not in (without, OWN)]

    def names(self, folder: str) -> set[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return {path.relative_to(self._root).as_posix() for path in (self._root / folder).iterdir()}
        return set()

    def stat(self, name: str) -> LandingFile | None:
        return self._file(self._root / name)

    def open(self, file: LandingFile) -> IO[bytes]:
        try:
            return Path(file.path).open("rb")
        except FileNotFoundError:
            raise vanished(file.name) from None
        except OSError as error:
            raise _failed(file.name, "read", error) from None

    def move(self, file: LandingFile, name: str) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            Path(file.path).replace(target)

    def delete(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)

    def write(
        self, name: str, source: Digesting, size: int, note: str | None, content_type: str | None = None
    ) -> bool:
        target, sidecar = self._root / name, self._sidecar(name)
        part = sidecar.with_suffix(f".{uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            _sweep(part.parent)
            with part.open("wb") as file:
                while block := source.read(BLOCK):
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            if note is not None:
                written = self.stat(name)
                sidecar.write_text(json.dumps({"note": note, "version": written and written.version}))
        except OSError as error:
            raise _failed(name, "written", error) from None
        finally:
            part.unlink(missing_ok=True)
        return False

    def note(self, file: LandingFile) -> str | None:
        try:
            kept = json.loads(self._sidecar(file.name).read_text())
        except (OSError, ValueError):
            return None
        return str(kept["note"]) if kept["version"] == file.version else None

    def _sidecar(self, name: str) -> Path:
        return self._root / OWN / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"

    def _file(self, path: Path) -> LandingFile | None:
        name = path.relative_to(self._root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FileError(ascii(name), "the name is not valid UTF-8", "Rename the file.") from None
        # The listing of fsspec tells of a link where its info tells of what that leads to.
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise FileError(name, "is a link that leads out of the landing zone", "Copy the file instead.")
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        tag = version(status.st_size, status.st_mtime_ns, status.st_ino)
        return LandingFile(name, status.st_size, tag, status.st_mtime, str(path))


def _sweep(folder: Path) -> None:
    """Remove what writers have left that were killed."""
    for part in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                part.unlink()


def _failed(name: str, done: str, error: OSError) -> FileError:
    return FileError(name, f"cannot be {done}: {error.strerror or error}", "Check its permissions.")
