"""Places in stores, and the blocks that name them: what they may say, and what every mistake tells."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from orrery.config.airbyte import Airbyte
from orrery.config.ingest import Files
from orrery.config.stores import Place, split_pattern
from orrery.config.transfer import Transfer


@pytest.mark.parametrize(
    ("uri", "place", "again"),
    [
        ("file:///data/landing/", Place("file", None, "", "/data/landing"), "file:///data/landing"),
        ("file:///", Place("file", None, "", "/"), "file:///"),
        ("s3://bucket", Place("s3", None, "bucket", ""), "s3://bucket"),
        ("s3://my_aws@my-bucket/in/", Place("s3", "my_aws", "my-bucket", "in"), "s3://my_aws@my-bucket/in"),
        ("gs://a.b-c@x.y/a b/ü@1", Place("gs", "a.b-c", "x.y", "a b/ü@1"), "gs://a.b-c@x.y/a b/ü@1"),
    ],
)
def test_a_place(uri: str, place: Place, again: str) -> None:
    assert Place.parse(uri) == place
    assert place.uri == again
    assert Place.parse(again) == place
    assert place.name_of(place.below("x/y.csv").uri) == "x/y.csv"
    assert place.name_of(place.uri) is None


@pytest.mark.parametrize(
    "uri",
    ["", "/data", "data", "file://data", "file://me@/data", "s3:/bucket", "s3://", "s3://Bucket", "s3://a/b@c/d"[:4],
     "ftp://host/x", "s3://me@", "s3://-bucket", "memory://x", "s3://my aws@bucket"],
)  # fmt: skip
def test_what_is_no_place(uri: str) -> None:
    with pytest.raises(ValueError, match="no"):
        Place.parse(uri)


@pytest.mark.parametrize(
    "secret", ["KEY:open@bucket", "KEY:se/open@bucket", "KEY:open%40@bucket/x", "KEY:s@open@b"]
)
@pytest.mark.parametrize("scheme", ["s3", "gs", "ftp", "file"])
def test_no_error_repeats_a_secret(scheme: str, secret: str) -> None:
    for parse in (Place.parse, split_pattern):
        with pytest.raises(ValueError, match="no") as caught:
            parse(f"{scheme}://{secret}/in/*.csv")
        assert "open" not in str(caught.value)


def test_names_below_a_place() -> None:
    place = Place.parse("s3://my_aws@bucket/in")
    assert place.name_of("s3://bucket/in/a b.csv") == "a b.csv"
    assert place.name_of("s3://my_aws@bucket/in/x/y") == "x/y"
    for elsewhere in ("s3://other@bucket/in/a", "s3://bucket/inn/a", "s3://bucket2/in/a", "gs://bucket/in/a"):
        assert place.name_of(elsewhere) is None
    assert Place.parse("file:///").name_of("file:///a/b") == "a/b"


@pytest.mark.parametrize(
    ("uri", "place", "pattern"),
    [
        ("s3://c@bucket/in/*.csv", "s3://c@bucket/in", "*.csv"),
        ("s3://bucket/*.csv", "s3://bucket", "*.csv"),
        ("gs://bucket/in/2026-*/x?.csv", "gs://bucket/in", "2026-*/x?.csv"),
        ("gs://bucket/in/a.csv", "gs://bucket/in", "a.csv"),
        ("file:///*.csv", "file:///", "*.csv"),
        ("file:///data/**/[ab].csv", "file:///data", "**/[ab].csv"),
    ],
)
def test_a_pattern_is_split_at_the_last_folder_before_a_wildcard(uri: str, place: str, pattern: str) -> None:
    found, below = split_pattern(uri)
    assert (found.uri, below) == (place, pattern)


@pytest.mark.parametrize("zone", ["file:///data", "s3://my_aws@bucket/landing", "gs://bucket"])
def test_a_landing_zone(zone: str) -> None:
    assert Files.model_validate({"files": "*.csv", "landing_zone": zone}).landing_zone == zone


FINE = {"transfer": "s3://a@bucket/in/*.csv", "to": "gs://b@lake/raw"}
MISTAKES: list[tuple[type[Any], dict[str, Any], str]] = [
    (Files, {"files": "*.csv", "landing_zone": "/data"}, "'/data' is no URI of a folder or a bucket"),
    (Files, {"files": "*.csv", "landing_zone": "s3://bucket/in/*"}, "is no place for files"),
    (Files, {"files": "*.csv", "landing_zone": "file:///data/../x"}, "is no place for files"),
    (Files, {"files": "*.csv", "landing_zone": "s3://k:s@bucket"}, "names no Airflow connection"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket"}, "names no files"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/"}, "names no files"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/in/"}, "names no files"),
    (Transfer, {**FINE, "transfer": "bucket/in/*"}, "is no URI of a folder or a bucket"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/in/../*"}, "is no pattern of objects"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/in//*"}, "is no pattern of objects"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/in/**.csv"}, "is no pattern of objects"),
    (Transfer, {**FINE, "to": "gs://b@lake/*"}, "is no place for files"),
    (Transfer, {**FINE, "to": "s3://a@bucket/in"}, "the objects are copied onto themselves"),
    (Transfer, {**FINE, "transfer": "s3://a@bucket/in/**", "to": "s3://bucket/in/copy"}, "be copied again"),
    (Transfer, {**FINE, "if_missing": "wait"}, "Input should be 'skip' or 'fail'"),
    (Transfer, {"transfer": FINE["transfer"]}, "Field required"),
    (Airbyte, {"airbyte": ""}, "at least 1 character"),
    (Airbyte, {"airbyte": "crm", "poll": 0}, "0 is no duration to wait"),
    (Airbyte, {"airbyte": "crm", "timeout": "an hour"}, "'an hour' is no duration"),
    (Airbyte, {"airbyte": "crm", "conection": "x"}, "Extra inputs are not permitted"),
]


@pytest.mark.parametrize(("model", "content", "what"), MISTAKES)
def test_a_mistake(model: type[Any], content: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(content)
    (error,) = caught.value.errors()
    assert what in error["msg"]
    if error["type"] == "orrery":
        assert error["ctx"]["fix"]


def test_the_defaults() -> None:
    spec = Airbyte(airbyte="crm")
    assert (spec.connection, spec.timeout, spec.poll) == (
        "airbyte_default",
        timedelta(hours=1),
        timedelta(seconds=3),
    )
    assert Transfer.model_validate(FINE).if_missing == "fail"
    # A copy beside the originals, which the pattern does not match.
    Transfer.model_validate({"transfer": "s3://a@bucket/in/*.csv", "to": "s3://b@bucket/in/done"})
