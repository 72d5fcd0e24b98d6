"""Objects in Google Cloud Storage.

The client is the one that dbt's adapter for BigQuery brings along. Airflow's provider for Google would bring
some hundred packages more, and be held back by that adapter; of its connections the fields that say who asks
have the same names here.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO, Any, cast

import google.auth
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import service_account

from orrery.config.stores import Place
from orrery.ingest.bucket import Bucket, Ranges
from orrery.ingest.connections import require
from orrery.ingest.errors import SetupError
from orrery.ingest.stores import BLOCK, Digesting, LandingFile, changed, vanished

EXAMPLE = "google-cloud-platform://?key_path=/path/to/key.json&project=my-project"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
_NOTE = "orrery-note"
_RETRY = DEFAULT_RETRY.with_timeout(30.0)
_FIELDS = "items(name,size,generation,md5Hash),prefixes,nextPageToken"


@lru_cache(maxsize=16)
def _client(known: str) -> Any:
    """A client, the same one for as long as nobody changes what is known of the connection (as JSON)."""
    extra = json.loads(known)
    who, project = _credentials(extra)
    endpoint = extra.get("gcs.endpoint")
    return storage.Client(
        project=extra.get("project") or project or "none",
        credentials=who,
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )


class GcsStore(Bucket):
    """The objects of a bucket."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        known = require(place.connection, EXAMPLE).extra or "{}" if place.connection else "{}"
        with self._told():
            try:
                self._client = _client(known)
            except (OSError, ValueError) as error:
                # What is wrong with it would show some of it.
                raise SetupError(
                    f"{self.place.uri}: {self.who} has no key that can be read ({type(error).__name__}).\n"
                    "  Correct its key_path or keyfile_dict."
                ) from None
        self._bucket = self._client.bucket(place.bucket)

    def pages(self, prefix: str, *, deep: bool) -> Iterator[tuple[list[LandingFile], list[str]]]:
        with self._told():
            listing = self._client.list_blobs(
                self._bucket, prefix=prefix, delimiter=None if deep else "/", fields=_FIELDS, retry=_RETRY
            )
            known: set[str] = set()
            for page in listing.pages:
                files = [self._file(blob) for blob in page]
                yield files, sorted(listing.prefixes - known)
                known |= listing.prefixes

    def stat(self, name: str) -> LandingFile | None:
        with self._told():
            blob = self._bucket.get_blob(self.key(name), retry=_RETRY)
        return self._file(blob) if blob else None

    def open(self, file: LandingFile) -> IO[bytes]:
        generation = int(file.tag) if file.tag else None

        def fetch(start: int, end: int) -> bytes:
            # Of another generation nothing is read, even if that is the one that is there now. Each time a
            # new one: from an answer that does not name its generation, the client would forget it.
            blob = self._bucket.blob(file.path, generation=generation)
            with self._told(file):
                return cast(
                    "bytes",
                    blob.download_as_bytes(
                        start=start, end=end - 1, raw_download=True, checksum=None, retry=_RETRY
                    ),
                )

        if not file.size:
            with self._told(file):
                self._bucket.blob(file.path, generation=generation).reload(retry=_RETRY)
        return cast("IO[bytes]", io.BufferedReader(Ranges(fetch, file.size), BLOCK))

    def move(self, file: LandingFile, name: str) -> None:
        generation = int(file.tag) if file.tag else None
        source, target = self._bucket.blob(file.path), self._bucket.blob(self.key(name))
        with self._told(file):
            token, _, _ = target.rewrite(source, if_source_generation_match=generation, retry=_RETRY)
            while token:
                token, _, _ = target.rewrite(
                    source, token=token, if_source_generation_match=generation, retry=_RETRY
                )
        self.remove(file)

    def remove(self, file: LandingFile) -> None:
        with self._told(file):
            self._bucket.blob(file.path).delete(
                if_generation_match=int(file.tag) if file.tag else None, retry=_RETRY
            )

    def delete(self, name: str) -> None:
        with self._told(), suppress(exceptions.NotFound):
            self._bucket.blob(self.key(name)).delete(retry=_RETRY)

    def write(
        self, name: str, source: Digesting, size: int, note: str | None, content_type: str | None = None
    ) -> bool:
        blob = self._bucket.blob(self.key(name), chunk_size=BLOCK)
        if note is not None:
            blob.metadata = {_NOTE: note}
        with self._told():
            blob.upload_from_file(
                source,
                size=size,
                content_type=content_type or "application/octet-stream",
                checksum=None,
                retry=_RETRY,
            )
        if not size:
            # Nothing was read, so nothing was checked.
            source.read(1)
        return _md5(blob) == source.md5.hexdigest()

    def note(self, file: LandingFile) -> str | None:
        with self._told():
            blob = self._bucket.get_blob(file.path, retry=_RETRY)
        return (blob.metadata or {}).get(_NOTE) if blob and str(blob.generation) == file.tag else None

    def _file(self, blob: Any) -> LandingFile:
        return self.file(blob.name, int(blob.size), str(blob.generation), _md5(blob))

    def _gone(self, file: LandingFile) -> Exception:
        """What to say of a generation that is not there any more."""
        return changed(file.name) if self.stat(file.name) else vanished(file.name)

    @contextmanager
    def _told(self, file: LandingFile | None = None) -> Iterator[None]:
        """Turn the errors of the client into those of a store; `file` is what they are about."""
        try:
            yield
        except exceptions.NotFound:
            raise (self._gone(file) if file else self.no_bucket()) from None
        except exceptions.PreconditionFailed:
            raise (changed(file.name) if file else self.unreachable("precondition failed")) from None
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise self.refused(error.code) from None
        except DefaultCredentialsError:
            raise self.refused("no credentials") from None
        except (exceptions.GoogleAPIError, GoogleAuthError, requests.RequestException) as error:
            raise self.unreachable(type(error).__name__) from None


def _credentials(extra: dict[str, Any]) -> tuple[Any, str | None]:
    """Who asks, and for which project, by the fields of a connection."""
    if extra.get("is_anonymous"):
        return AnonymousCredentials(), None
    if key := extra.get("keyfile_dict"):
        key = json.loads(key) if isinstance(key, str) else key
        found = service_account.Credentials.from_service_account_info(key, scopes=_SCOPES)
        return found, found.project_id
    if path := extra.get("key_path"):
        return cast("tuple[Any, str | None]", google.auth.load_credentials_from_file(path, scopes=_SCOPES))
    return cast("tuple[Any, str | None]", google.auth.default(scopes=_SCOPES))


def _md5(blob: Any) -> str | None:
    """The checksum of an object, hexadecimal; composed ones have none."""
    return base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
