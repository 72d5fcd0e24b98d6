"""After a change of vars, dbt parses only the files that read them.

dbt keeps its parsed project for the next command, and drops all of it when any of its vars differs. Of
environment variables, dbt knows which files read them. This module adds the same for vars: it notes who
reads which name while dbt parses (orrery.manifest.watched_vars) and keeps the notes in dbt's partial parse.
The next time, files that read a changed name look to dbt as if an environment variable that they read had
changed.

dbt parses everything, as it does by itself, when it is about more than such files: when a changed name was
read outside of a file or by many files, when a resource has become another one for those that refer to it,
and when the partial parse fails. What is used of dbt here is not public, and no other module of Orrery
changes how it parses; tests/unit/test_upstream.py fails when it differs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orrery.manifest.outline import Outline, changed_files, outline
from orrery.manifest.watched_vars import ALL, OUTSIDE, Reads, WatchedVars, digests

log = logging.getLogger(__name__)

# Entries of a partial parse among the environment variables that were read: the notes, and what files have
# read that are to be parsed again.
READS = "ORRERY_VARS"
CHANGED = "ORRERY_CHANGED_VARS"
# What more than one in so many files and properties reads, counts for all: one parse is faster then.
_MANY = 3
# The parsers of files that the partial parser replaces one by one. Others, such as macros, are parts of many.
_PARSERS = ("Analysis", "Model", "Schema", "Seed", "SingularTest", "Snapshot")
# What a properties file may describe to be one of them; the rest has references of its own kinds.
DESCRIBED = frozenset(
    {"analyses", "data_tests", "exposures", "models", "seeds", "snapshots", "sources", "unit_tests"}
)


class _Vars(WatchedVars):
    """The vars of one invocation of dbt, and what is known of its parse.

    :ivar beside: dbt's hash of what a parse depends on beside vars
    :ivar changed: the names that differ from those of the saved parse
    :ivar files: those that are parsed again because of them; None when dbt does as it does by itself
    :ivar before: the saved parse
    :ivar doubtful: to parse those files was not enough
    """

    beside = ""
    changed: frozenset[str] = frozenset()
    files: frozenset[str] | None = None
    before: Outline
    doubtful = False


def watch() -> None:
    """From now on, dbt in this process parses so."""
    from dbt.cli import requires
    from dbt.parser.manifest import ManifestLoader
    from dbt.parser.sources import SourcePatcher

    if hasattr(vars(requires)["Flags"], "__wrapped__"):
        return
    _wrap(requires, "Flags", _flags)
    _wrap(requires, "setup_manifest", _setup_manifest)
    _wrap(ManifestLoader, "build_manifest_state_check", _build_manifest_state_check)
    _wrap(ManifestLoader, "is_partial_parsable", _is_partial_parsable)
    _wrap(ManifestLoader, "load", _load)
    _wrap(ManifestLoader, "write_manifest_for_partial_parse", _write)
    for parser in parsers():
        _wrap(parser, "parse_file", _parse_file)
    for name in ("patch_source", "parse_source", "parse_source_test"):
        _wrap(SourcePatcher, name, _parse_source)


def parsers() -> list[type]:
    """The classes of dbt that define how a file is parsed which can be parsed again alone."""
    from dbt.parser import manifest

    kinds = [getattr(manifest, f"{name}Parser") for name in _PARSERS]
    owners = [next(base for base in kind.__mro__ if "parse_file" in vars(base)) for kind in kinds]
    return [*dict.fromkeys(owners)]


def read_by_many(partial_parse: Path) -> frozenset[str] | None:
    """The variables that count for all files of a partial parse; None if all do, or if nobody knows."""
    import msgpack

    try:
        text = msgpack.unpackb(partial_parse.read_bytes())["env_vars"].get(READS)
    except (OSError, ValueError):
        return None
    names = Reads.load(text).outside if text else frozenset({ALL})
    return None if ALL in names else names


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Put `wrapper`, called with the original and its arguments, in the place of something of dbt's."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)


def _flags(original: Any, *args: Any, **kwargs: Any) -> Any:
    """dbt's flags at the beginning of an invocation, among them its vars."""
    flags = original(*args, **kwargs)
    given = getattr(flags, "VARS", None)
    _set_vars(flags, _Vars(given if isinstance(given, dict) else {}))
    return flags


def _setup_manifest(original: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
    """The part of an invocation that parses, unless it was handed a parsed project."""
    flags = context.obj["flags"]
    variables: _Vars = flags.VARS
    try:
        return original(context, *args, **kwargs)
    finally:
        # `dbt run-operation` writes only those of its flags whose type is exactly `dict`, and wants its vars.
        _set_vars(flags, variables.unwatched())


def _set_vars(flags: Any, variables: dict[str, Any]) -> None:
    for name in ("VARS", "vars"):
        if hasattr(flags, name):
            object.__setattr__(flags, name, variables)


def _parse_file(original: Any, parser: Any, block: Any, *args: Any, **kwargs: Any) -> None:
    with parser.root_project.cli_vars.parsing(block.file.file_id):
        original(parser, block, *args, **kwargs)


def _parse_source(original: Any, patcher: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
    with patcher.root_project.cli_vars.parsing(target.file_id):
        return original(patcher, target, *args, **kwargs)


def _build_manifest_state_check(original: Any, loader: Any) -> Any:
    """What dbt compares with the saved parse."""
    loader.saved_reads = None
    project = loader.root_project
    variables: _Vars = project.cli_vars
    try:
        # dbt prints vars for its hash, and mappings of its own kind in the order of their keys only.
        project.cli_vars = variables.unwatched()
        check = original(loader)
        project.cli_vars = {}
        variables.beside = original(loader).vars_hash.checksum
    finally:
        project.cli_vars = variables
    return check


def _is_partial_parsable(original: Any, loader: Any, manifest: Any) -> Any:
    """Whether dbt may use its saved parse: also that of other vars, if only single files have read them."""
    text = manifest.env_vars.pop(READS, None)
    saved = loader.saved_reads = Reads.load(text) if text else None
    variables: _Vars = loader.root_project.cli_vars
    if saved and saved.beside == variables.beside and not variables.doubtful:
        variables.changed = saved.changed(digests(variables.unwatched()))
        readers = saved.readers(variables.changed)
        files = [manifest.files[file_id] for file_id in readers if file_id in manifest.files]
        if variables.changed and OUTSIDE not in readers and all(map(_can_be_replaced, files)):
            manifest.state_check.vars_hash = loader.manifest.state_check.vars_hash
            variables.files = frozenset(file.file_id for file in files)
            variables.before = outline(manifest)
            _mark(manifest, files)
    usable, reason = original(loader, manifest)
    if not usable:
        variables.files = None
    return usable, reason


def _properties(file: Any) -> dict[str, list[dict[str, Any]]] | None:
    """The elements of a properties file by their kinds, such as `models`; None of any other file."""
    if str(file.parse_file_type) != "schema":
        return None
    # dbt passes over what is no list, such as an empty key or one of somebody's own.
    return {key: elements for key, elements in file.dict_from_yaml.items() if isinstance(elements, list)}


def _can_be_replaced(file: Any) -> bool:
    properties = _properties(file) or {}
    names = [str(element.get("name", "{")) for elements in properties.values() for element in elements]
    # dbt finds what it has parsed by the name in the file, which must not be one to be rendered.
    return properties.keys() <= DESCRIBED and not any("{" in name for name in names)


def _mark(manifest: Any, files: Iterable[Any]) -> None:
    """Let files have read an environment variable that has gone."""
    manifest.env_vars[CHANGED] = ""
    for file in files:
        properties = _properties(file)
        if properties is None:
            file.env_vars.append(CHANGED)
            continue
        for key, elements in properties.items():
            for element in elements:
                file.add_env_var(CHANGED, key, element["name"])


def _load(original: Any, loader: Any) -> Any:
    """Parse the project; anew, where some of it is not enough."""
    variables: _Vars = loader.root_project.cli_vars
    try:
        return _parse(original, loader, variables)
    finally:
        variables.stop()


def _parse(original: Any, loader: Any, variables: _Vars) -> Any:
    try:
        manifest = original(loader)
        files = changed_files(variables.before, outline(manifest)) if variables.files else frozenset()
        if not files:
            return manifest
        log.debug("With these vars, others have to know of changes in %s.", sorted(files))
    except Exception as error:
        if not variables.files:
            raise
        files = variables.files
        log.debug("With these vars, it is not enough to parse %s: %s", sorted(files), error)
    # What these files read counts for others, so that the next run with it begins from this parse.
    read = {name for file_id in files for name in loader.saved_reads.files.get(file_id, ())}
    variables.read = {OUTSIDE: variables.read.get(OUTSIDE, set()) | (variables.changed & read)}
    variables.files, variables.doubtful = None, True
    loader.__init__(loader.root_project, loader.all_projects, loader.macro_hook, loader.file_diff)
    return original(loader)


def _write(original: Any, loader: Any) -> None:
    """Keep what was parsed, unless it is for these vars alone: the next ones begin from the same."""
    variables: _Vars = loader.root_project.cli_vars
    manifest, saved = loader.manifest, loader.saved_reads
    again = manifest is loader.saved_manifest
    if again and variables.files is not None:
        return
    reads = {file_id: frozenset(names) for file_id, names in variables.read.items()}
    for file_id, names in saved.files.items() if again and saved else ():
        file = manifest.files.get(file_id)
        # Of properties, dbt may have parsed a part.
        if file_id == OUTSIDE or (file and (file_id not in reads or _properties(file) is not None)):
            reads[file_id] = reads.get(file_id, frozenset()) | names
    # Of a part of a project nobody knows who has read what, if nobody has noted it before.
    if saved or not again:
        reads[OUTSIDE] = reads.get(OUTSIDE, frozenset()) | _read_by_many(manifest.files, reads)
        manifest.env_vars[READS] = Reads(variables.beside, digests(variables.unwatched()), reads).dump()
    try:
        original(loader)
    finally:
        manifest.env_vars.pop(READS, None)


def _read_by_many(files: Mapping[str, Any], reads: Mapping[str, frozenset[str]]) -> frozenset[str]:
    sizes: Counter[str] = Counter()
    for file_id, names in reads.items():
        if file := files.get(file_id):
            size = sum(map(len, (_properties(file) or {"": [{}]}).values()))
            sizes.update(dict.fromkeys((*names, OUTSIDE), size))
    return frozenset(name for name, size in sizes.items() if name and size * _MANY > sizes[OUTSIDE])
