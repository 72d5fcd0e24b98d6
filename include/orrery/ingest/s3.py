"""Objects in S3, and in stores that speak its language."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO, Any, cast

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from orrery.config.stores import Place
from orrery.ingest.bucket import Bucket, Ranges
from orrery.ingest.connections import require
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.stores import BLOCK, Digesting, LandingFile, changed, vanished

EXAMPLE = "aws://ACCESS_KEY:SECRET_KEY@/?region_name=eu-central-1"
# An upload has at most 10,000 parts.
_MOST_PARTS = 9_000
# How often a block is asked for when its answer breaks off.
_ATTEMPTS = 3
_NOTE = "orrery-note"
# The object is another one by now, or is becoming one right now.
_CONDITIONS = ("PreconditionFailed", "412", "ConditionalRequestConflict")
_NO_CONDITIONS = ("NotImplemented", "501")
_REFUSALS = re.compile(
    "AccessDenied|Forbidden|AllAccessDisabled|InvalidAccessKeyId|SignatureDoesNotMatch|.*Token.*|40[13]"
)


@lru_cache(maxsize=16)
def _client(connection: str | None, _known: str) -> Any:
    """A client, the same one for as long as nobody changes what is known of the connection."""
    return S3Hook(aws_conn_id=connection).get_conn()


class S3Store(Bucket):
    """The objects of a bucket, by the client that Airflow's connection makes."""

    # The ETag of an object that a key of KMS encrypts looks like a checksum, and is none.
    exact = False
    # An ETag is made of the content alone.
    unique_tags = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        known = require(place.connection, EXAMPLE).get_uri() if place.connection else ""
        with self._told():
            self._client: Any = _client(place.connection, known)

    def pages(self, prefix: str, *, deep: bool) -> Iterator[tuple[list[LandingFile], list[str]]]:
        request = {"Bucket": self.place.bucket, "Prefix": prefix, **({} if deep else {"Delimiter": "/"})}
        with self._told():
            for page in self._client.get_paginator("list_objects_v2").paginate(**request):
                yield (
                    [
                        self._file(each["Key"], each["Size"], each["ETag"])
                        for each in page.get("Contents", ())
                    ],
                    [each["Prefix"] for each in page.get("CommonPrefixes", ())],
                )

    def stat(self, name: str) -> LandingFile | None:
        head = self._head(name)
        return self._file(self.key(name), head["ContentLength"], head["ETag"]) if head else None

    def open(self, file: LandingFile) -> IO[bytes]:
        def fetch(start: int, end: int) -> bytes:
            with self._told(file):
                for _ in range(1, _ATTEMPTS):
                    # The client begins a request anew, but no answer that breaks off.
                    with suppress(BotoCoreError):
                        return cast("bytes", self._get(file, start, end)["Body"].read())
                return cast("bytes", self._get(file, start, end)["Body"].read())

        if not file.size:
            with self._told(file):
                self._get(file)
        return cast("IO[bytes]", io.BufferedReader(Ranges(fetch, file.size), BLOCK))

    def move(self, file: LandingFile, name: str) -> None:
        with self._told(file):
            self._client.copy(
                {"Bucket": self.place.bucket, "Key": file.path},
                self.place.bucket,
                self.key(name),
                ExtraArgs={"CopySourceIfMatch": file.tag} if file.tag else None,
            )
        self.remove(file)

    def remove(self, file: LandingFile) -> None:
        # Not every store that speaks S3's language looks at the condition of a delete.
        self.again(file.name, file.version)
        target = {"Bucket": self.place.bucket, "Key": file.path}
        with self._told(file):
            try:
                self._client.delete_object(**target, **({"IfMatch": file.tag} if file.tag else {}))
            except ClientError as error:
                if _code(error) not in _NO_CONDITIONS:
                    raise
                self._client.delete_object(**target)

    def delete(self, name: str) -> None:
        with self._told():
            self._client.delete_object(Bucket=self.place.bucket, Key=self.key(name))

    def write(
        self, name: str, source: Digesting, size: int, note: str | None, content_type: str | None = None
    ) -> bool:
        part = max(BLOCK, -(-size // _MOST_PARTS))
        first = source.read(part)
        target = {"Bucket": self.place.bucket, "Key": self.key(name)}
        about = {
            **({"Metadata": {_NOTE: note}} if note is not None else {}),
            **({"ContentType": content_type} if content_type else {}),
        }
        with self._told():
            if len(first) == size:
                put = self._client.put_object(**target, Body=first, **about)
                # With a key of KMS the ETag is no checksum.
                return bool(put["ETag"].strip('"') == source.md5.hexdigest())
            upload = self._client.create_multipart_upload(**target, **about)
            target["UploadId"] = upload["UploadId"]
            try:
                return self._write_parts(target, first, source, part)
            except BaseException:
                # What a kill leaves behind is no object, and nobody sees it.
                self._client.abort_multipart_upload(**target)
                raise

    def note(self, file: LandingFile) -> str | None:
        head = self._head(file.name)
        return head["Metadata"].get(_NOTE) if head and head["ETag"] == file.tag else None

    def _write_parts(self, target: dict[str, Any], block: bytes, source: Digesting, size: int) -> bool:
        parts: list[dict[str, Any]] = []
        digests = b""
        while block:
            number = len(parts) + 1
            sent = self._client.upload_part(**target, PartNumber=number, Body=block)
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            digests += hashlib.md5(block, usedforsecurity=False).digest()
            block = source.read(size)
        done = self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        # S3's own: the digest of the digests of the parts, and their number.
        expected = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        return bool(done["ETag"].strip('"') == expected)

    def _get(self, file: LandingFile, start: int = 0, end: int = 0) -> Any:
        request = {"IfMatch": file.tag} if file.tag else {}
        if end:
            request["Range"] = f"bytes={start}-{end - 1}"
        return self._client.get_object(Bucket=self.place.bucket, Key=file.path, **request)

    def _head(self, name: str) -> Any:
        try:
            with self._told():
                return self._client.head_object(Bucket=self.place.bucket, Key=self.key(name))
        except _NotThere:
            return None

    def _file(self, key: str, size: int, tag: str) -> LandingFile:
        digest = tag.strip('"')
        # An object that came in parts has a dash in its ETag.
        return self.file(key, size, tag, digest if re.fullmatch("[0-9a-f]{32}", digest) else None)

    @contextmanager
    def _told(self, file: LandingFile | None = None) -> Iterator[None]:
        """Turn the errors of the client into those of a store; `file` is what they are about."""
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code == "NoSuchBucket":
                raise self.no_bucket() from None
            if code in ("NoSuchKey", "NoSuchVersion", "404"):
                raise (vanished(file.name) if file else _NotThere()) from None
            if code in _CONDITIONS and file:
                raise changed(file.name) from None
            if code == "InvalidObjectState" and file:
                what = "lies in a storage class from which it has to be restored first"
                raise FileError(file.name, what, "Restore it, or let a lifecycle rule spare it.") from None
            if _REFUSALS.fullmatch(code):
                raise self.refused(code) from None
            raise self.unreachable(code) from None
        except NoCredentialsError:
            raise self.refused("no credentials") from None
        except BotoCoreError as error:
            raise self.unreachable(type(error).__name__) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


class _NotThere(IngestError):
    """There is no such object, or the store does not tell whether it is the bucket that is missing."""
