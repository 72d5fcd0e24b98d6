"""Files in a folder of this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

from orrery.config.stores import Place, matching, without_wildcards
from orrery.ingest.errors import FileError, SetupError
from orrery.ingest.stores import BLOCK, Digesting, LandingFile, Store, changed, vanished, version

# Below a folder that files are written to: what is not complete yet, and notes.
OWN = "_orrery"
# How a file is called between its end in the landing zone and its removal.
_TAKEN = ".orrery-"
# Nobody has written to it for so long.
_ABANDONED_SECONDS = 86400


class FolderStore(Store):
    """The files below a folder."""

    steady = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._root = Path(place.path)

    def glob(self, pattern: str, *, without: str | None = None) -> list[LandingFile]:
        """As in Store; what is no file, such as a pipe, is left out.

        Raises FileError for a link that leads out of the folder, for a name that is not UTF-8, and for a
        folder that cannot be read: what is in it would be missing without a word.
        """
        begin = without_wildcards(pattern).rpartition("/")[0]
        root = self._root / begin
        levels = None if "**" in pattern else pattern[len(begin) :].strip("/").count("/")
        matches = matching(pattern)
        found = []
        for folder, folders, names in os.walk(root, onerror=self._cannot_list):
            place = Path(folder)
            if place == self._root:
                folders[:] = [name for name in folders if name not in (without, OWN)]
            if levels is not None and len(place.relative_to(root).parts) >= levels:
                folders.clear()
            paths = [place / name for name in names if not name.startswith(_TAKEN)]
            found += [path for path in paths if matches(path.relative_to(self._root).as_posix())]
        return [file for path in found if (file := self._file(path))]

    def names(self, folder: str) -> set[str]:
        try:
            return {path.relative_to(self._root).as_posix() for path in (self._root / folder).iterdir()}
        except OSError as error:
            self._cannot_list(error)
            return set()

    def _cannot_list(self, error: OSError) -> None:
        """Raise FileError, unless there is no such folder."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise _failed(str(error.filename or self._root), "read", error) from None

    def stat(self, name: str) -> LandingFile | None:
        try:
            return self._file(self._path(name))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise _failed(name, "read", error) from None

    def open(self, file: LandingFile) -> IO[bytes]:
        try:
            return Path(file.path).open("rb")
        except FileNotFoundError:
            raise vanished(file.name) from None
        except OSError as error:
            raise _failed(file.name, "read", error) from None

    def check_move(self, file: LandingFile, name: str | None) -> None:
        source = Path(file.path).parent
        target = (self._root / name).parent if name else source
        try:
            target.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise SetupError(
                f"{target} is no folder, but loaded files are to go there.\n"
                "  Give what is in its place another name, or set after_load: keep."
            ) from None
        except OSError as error:
            raise _failed(file.name, "archived", error) from None
        if not all(os.access(folder, os.W_OK | os.X_OK, effective_ids=True) for folder in {source, target}):
            raise FileError(
                file.name,
                "could not be put away after it is loaded: its folder, or the archive, is read-only",
                "Let Airflow's user write there, or set after_load: keep; nothing of it is loaded.",
            )
        if source.stat().st_dev != target.stat().st_dev:
            raise FileError(
                file.name,
                f"could not be put away after it is loaded: {target} is on another file system",
                "Land files on one file system, or set after_load: keep; nothing of it is loaded.",
            )

    def move(self, file: LandingFile, name: str) -> None:
        target = self._path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._take(file, target)
        except OSError as error:
            raise _failed(file.name, "archived", error) from None

    def remove(self, file: LandingFile) -> None:
        path = Path(file.path)
        # In the same folder, where it is on the same file system for certain.
        taken = path.with_name(f"{_TAKEN}{uuid4().hex}")
        try:
            self._take(file, taken)
            taken.unlink()
        except OSError as error:
            raise _failed(file.name, "removed", error) from None

    def _take(self, file: LandingFile, target: Path) -> None:
        """Rename a file. Nobody can replace it any more then: what was there in its place goes back."""
        path = Path(file.path)
        content = path.resolve()
        try:
            path.replace(target)
        except FileNotFoundError:
            raise vanished(file.name) from None
        if _version(content if target.is_symlink() else target) != file.version:
            _put_back(target, path)
            raise changed(file.name)

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def write(
        self, name: str, source: Digesting, size: int, note: str | None, content_type: str | None = None
    ) -> bool:
        target, sidecar = self._path(name), self._sidecar(name)
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

    def _path(self, name: str) -> Path:
        """Where a file is; raises FileError for a name that leads out of the folder: objects may have one."""
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            raise FileError(name, "is no name of a file in a folder", "Give the object another name.")
        return self._root / name

    def _file(self, path: Path) -> LandingFile | None:
        name = path.relative_to(self._root).as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FileError(ascii(name), "the name is not valid UTF-8", "Rename the file.") from None
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise FileError(name, "is a link that leads out of the landing zone", "Copy the file instead.")
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        # Whoever copies a file may give it any time of change, but not the one of its entry in the folder.
        modified = min(status.st_mtime, status.st_ctime)
        return LandingFile(name, status.st_size, _version_of(status), modified, str(path))


def _version_of(status: os.stat_result) -> str:
    return version(status.st_size, status.st_mtime_ns, status.st_ino)


def _version(path: Path) -> str | None:
    try:
        return _version_of(path.stat())
    except FileNotFoundError:
        return None


def _put_back(taken: Path, path: Path) -> None:
    """Give a file its name back, unless its writer has replaced it by yet another one."""
    try:
        path.hardlink_to(taken)
    except FileExistsError:
        taken.unlink()
    except OSError:
        # Not every file system has hard links.
        taken.rename(path)
    else:
        taken.unlink()


def _sweep(folder: Path) -> None:
    """Remove what writers have left that were killed."""
    for part in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                part.unlink()


def _failed(name: str, done: str, error: OSError) -> FileError:
    return FileError(name, f"cannot be {done}: {error.strerror or error}", "Check its permissions.")
