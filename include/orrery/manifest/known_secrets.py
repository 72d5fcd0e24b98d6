"""The secrets that a text could show by mistake, known by their values.

They are those of Airflow's variables, of dbt's own DBT_ENV_SECRET_*, and of the profile by which dbt reaches
the warehouse. What is learned once stays known to the process.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from orrery.config.environment import is_of_airflow
from orrery.config.project import Project
from orrery.manifest.profile import ProfileError, read_output

HIDDEN = "***"
# dbt itself hides the values of these, and allows them in profiles only.
DBT_SECRET = "DBT_ENV_SECRET_"

_SENSITIVE = re.compile(
    r"password|passwd|passphrase|secret|token|credential|private_?key"
    r"|(api|access|account|fernet|signing|shared)_?key|keyfile_json|^pass$",
    re.IGNORECASE,
)
_NO_VALUE = re.compile(r"_(path|file|dir|cmd|expiration\w*|timeout|algorithm|url)$", re.IGNORECASE)
_IN_URI = re.compile(r"://[^\s/:@]*:([^\s/@]+)@")
# A shorter secret, or a plain word, stands in too many texts that have nothing to do with it.
_SHORTEST, _LONG = 8, 20

# Where each comes from, by the ways in which it may be written.
_known: dict[str, str] = {}


def learn(project: Project) -> None:
    """Take down the secrets of this process's environment and of dbt's profile."""
    found: dict[str, str] = {}
    plain: set[str] = set()
    for name, value in list(os.environ.items()):
        if name.startswith(DBT_SECRET):
            found[value] = name
        elif is_of_airflow(name):
            found |= dict.fromkeys(_of_variable(name, value), name)
    with suppress(ProfileError):
        output = read_output(project)
        found = dict.fromkeys(_of_mapping(output), "the profile in profiles.yml") | found
        plain = {str(value) for key, value in output.items() if not _is_sensitive(key)}
    _remember({value: name for value, name in found.items() if _is_telling(value) and value not in plain})


def of_airflow(environment: Mapping[str, str]) -> set[str]:
    """The secrets in those variables of an environment that are Airflow's."""
    return {
        secret
        for name, value in environment.items()
        if is_of_airflow(name)
        for secret in _of_variable(name, value)
        if _is_telling(secret)
    }


def conceal(text: str) -> str:
    """A text in which no known secret can be read."""
    for form in _known:
        if form in text:
            text = text.replace(form, HIDDEN)
    return text


def concealed(value: Any) -> Any:
    """A value, as JSON has them, in which no known secret can be read."""
    if isinstance(value, str):
        return conceal(value)
    if isinstance(value, Mapping):
        return {key: concealed(each) for key, each in value.items()}
    return [concealed(each) for each in value] if isinstance(value, list | tuple) else value


def found_in(content: str) -> str | None:
    """Where a secret in `content` comes from, such as the name of a variable; None when there is none."""
    return next((origin for form, origin in _known.items() if form in content), None)


def known() -> frozenset[str]:
    """All known secrets, in every way in which they may be written."""
    return frozenset(_known)


def _remember(secrets: Mapping[str, str]) -> None:
    global _known  # noqa: PLW0603 - one for the process, as Airflow's masker of logs is
    if not secrets.keys() <= _known.keys():
        forms = {form: origin for secret, origin in secrets.items() for form in _forms(secret)} | _known
        # The longest first: one may be the beginning of another.
        _known = dict(sorted(forms.items(), key=lambda item: -len(item[0])))


def _forms(secret: str) -> set[str]:
    """The ways in which a secret may be written."""
    raw = secret.encode(errors="replace")
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        html.escape(secret),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        raw.hex(),
    }


def _of_variable(name: str, value: str) -> Iterator[str]:
    """The secrets in the value of one of Airflow's variables."""
    try:
        document = json.loads(value)
    except ValueError:
        document = None
    if isinstance(document, dict):
        yield from _of_mapping(document)
        return
    yield from map(unquote, _IN_URI.findall(value))
    if name.upper().startswith("AIRFLOW_CONN_"):
        with suppress(ValueError):
            for key, each in parse_qsl(urlsplit(value).query):
                # Extra fields that are no texts are in one parameter, as JSON.
                yield from _of_mapping({key: _parsed(each)})
    if _is_sensitive(name.rpartition("__")[2]) and "://" not in value:
        yield value


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _of_mapping(values: Mapping[str, Any], *, all_of_it: bool = False) -> Iterator[str]:
    for key, given in values.items():
        sensitive = all_of_it or _is_sensitive(key)
        value = _parsed(given) if key == "extra" and isinstance(given, str) else given
        if isinstance(value, Mapping):
            # Of a service account's file only the key itself.
            yield from _of_mapping(value)
        elif isinstance(value, list):
            yield from _of_mapping(dict(enumerate(value)), all_of_it=sensitive)  # type: ignore[arg-type]
        elif isinstance(value, str) and sensitive:
            yield value
        elif isinstance(value, str):
            yield from map(unquote, _IN_URI.findall(value))


def _is_sensitive(key: object) -> bool:
    return bool(_SENSITIVE.search(str(key))) and not _NO_VALUE.search(str(key))


def _is_telling(secret: str) -> bool:
    """Whether a text that contains the secret contains it for no other reason."""
    if len(secret) < _SHORTEST:
        return False
    kinds = {(each.isalpha(), each.isdigit()) for each in secret if each not in "_-. /"}
    mixed = secret[1:].lower() != secret[1:] and secret.upper() != secret
    return len(secret) >= _LONG or len(kinds) > 1 or mixed
