"""Looks for secrets where they must not be: in files, in databases, and in what a server answers."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus

import psycopg2
from psycopg2 import sql

from support.running import content, files_below


def forms(secret: str) -> set[str]:
    """The ways in which a secret may be written."""
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        html.escape(secret),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        # How PostgreSQL shows what is no text.
        raw.hex(),
    }


class Search:
    """A search for secrets, each with a name to tell it by: what is found must not be shown again."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._names = {form: name for name, secret in secrets.items() for form in forms(secret)}

    def in_bytes(self, found: bytes) -> set[str]:
        """The names of the secrets in something."""
        return {name for form, name in self._names.items() if form.encode() in found}

    def in_files(self, *folders: Path, but: Iterable[Path] = ()) -> dict[Path, set[str]]:
        """The files below `folders`, links not followed, that hold secrets; `but` leaves folders out."""
        return {
            path: names for path in files_below(*folders, but=but) if (names := self.in_bytes(content(path)))
        }

    def in_tables(self, dsn: str) -> dict[str, set[str]]:
        """The tables of a PostgreSQL database, with their schemas, that hold secrets in any column."""
        found = {}
        with closing(psycopg2.connect(dsn)) as link, link.cursor() as cursor:
            cursor.execute(
                "select schemaname, tablename from pg_tables"
                " where schemaname not in ('pg_catalog', 'information_schema')"
            )
            for name in cursor.fetchall():
                query = sql.SQL(
                    "select distinct form from {} as t, unnest(%s) as form where strpos(t::text, form) > 0"
                )
                cursor.execute(query.format(sql.Identifier(*name)), (list(self._names),))
                if names := {self._names[form] for (form,) in cursor.fetchall()}:
                    found[".".join(name)] = names
        return found
