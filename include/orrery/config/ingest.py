"""The `ingest` block of kind `files`: which files fill the table of a source, and how."""

from __future__ import annotations

import codecs
import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orrery.config.block import Block, Duration, Names, mistake
from orrery.config.project import Project
from orrery.config.stores import check_place

# In a pattern on a source: the name of each of its tables.
TABLE = "{table}"
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
# Of these the fields stand between tabs.
_TABS = ".tsv"
GZIP = ".gz"

_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB)")
_SIZE_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def _rejected(value: Any) -> Any:
    """A number of rows, or a share of them as a float of at most 1."""
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if match and float(match[1]) <= 100:
        return float(match[1]) / 100
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise mistake(f"{value!r} is neither a number of rows nor a share", "Write for example 100 or 0.5%.")


def _size(value: Any) -> Any:
    """A number of bytes."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    size = int(match[1]) * _SIZE_UNITS[match[2]] if match else value
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise mistake(f"{value!r} is no size", "Write for example 64MB or 1GB, or a number of bytes.")
    return size


def _check_pattern(value: str) -> str:
    parts = value.split("/")
    if not value.strip() or value.startswith("/") or "://" in value or ".." in parts:
        raise mistake(
            f"{value!r} is no pattern below the landing zone",
            "Write a path without a leading / and without .., such as transactions/*.csv",
        )
    if any("**" in part and part != "**" for part in parts):
        raise mistake(f"{value!r} is no pattern", "Let ** stand alone between slashes, such as in **/*.csv")
    return value


def _one_character(value: str) -> str:
    if len(value.encode()) != 1 or value in "\r\n\0" or value.isalnum():
        raise mistake(
            f"{value!r} cannot stand between or around fields",
            'Write one ASCII character such as ";" or "\\t".',
        )
    return value


def _check_encoding(value: str) -> str:
    try:
        # Others, such as base64, are no encodings of text.
        "".encode(value)
        return codecs.lookup(value).name
    except LookupError:
        raise mistake(f"{value!r} is no encoding", "Write for example utf-8, latin-1 or utf-16.") from None


def _ending(pattern: str) -> str:
    """What the files of a pattern end with, not counting .gz; empty where that is not known."""
    name = pattern.lower().removesuffix(GZIP)
    return next(filter(name.endswith, FORMATS), "")


Rejected = Annotated[int | float, BeforeValidator(_rejected, json_schema_input_type=str | int)]
Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str | int)]
Character = Annotated[str, AfterValidator(_one_character)]


class Csv(Block):
    """How CSV files are written."""

    delimiter: Character = Field(
        ",", description="What stands between two fields; in files that end with .tsv by default a tab."
    )
    quote: Character = Field('"', description="What stands around a field that holds delimiters or lines.")
    escape: Character | None = Field(
        None, description="What stands before a quote inside of a field; by default a second quote."
    )
    header: bool = Field(True, description="Whether the first line names the columns.")
    encoding: Annotated[str, AfterValidator(_check_encoding)] = Field(
        "utf-8", description="The encoding of the text; a byte order mark is left out."
    )
    null_values: Names = Field((), description="What stands for null, besides a field with nothing in it.")
    decimal: Literal[".", ","] = Field(".", description="The decimal separator of numbers.")

    @model_validator(mode="after")
    def _check_different(self) -> Csv:
        if self.delimiter in (self.quote, self.escape):
            raise mistake(
                "the delimiter is the quote or the escape character, too",
                "Change one of them.",
                key="delimiter",
            )
        return self


class Files(Block):
    """Files in a landing zone."""

    files: Annotated[str, AfterValidator(_check_pattern)] = Field(
        description="Which files, relative to the landing zone; *, ** and ? as in a shell. On a source, "
        "{table} stands for the name of each of its tables."
    )
    landing_zone: Annotated[str, AfterValidator(check_place)] | None = Field(
        None,
        description="Where they arrive, such as file:///data/landing, s3://my_aws@bucket/landing or "
        "gs://my_google@bucket/landing, where an Airflow connection stands before the @; by default "
        "ORRERY_LANDING_ZONE, else the folder landing/ of the dbt project.",
    )
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="By default what the names end with, not counting .gz."
    )
    csv: Csv = Field(Csv(), description="How CSV files are written.")
    load: Literal["upsert", "append", "replace"] | None = Field(
        None,
        description="upsert: a row takes the place of the one with its key; append: rows are added; replace: "
        "the table holds what the files hold that are there. By default upsert with a key, else append.",
    )
    key: Names = Field((), description="The columns that tell a row from all others.")
    on_new_column: Literal["fail", "add", "ignore"] = Field(
        "fail", description="What to do with a column of a file that the source does not declare."
    )
    max_rejected: Rejected = Field(
        0, description="How many rows of a file, or which share, may be rejected; with more it is not loaded."
    )
    chunk_size: Size | None = Field(
        None,
        description="A file that is larger is cut between records into parts of about this size, such as "
        "64MB, which tasks of their own read at the same time.",
    )
    if_missing: Literal["skip", "wait", "fail"] = Field(
        "fail",
        description="What to do without a file. skip: what reads the source runs on; wait: until a file "
        "arrives that is not loaded yet.",
    )
    timeout: Duration = Field(timedelta(days=1), description="How long to wait, with if_missing: wait.")
    settle: Duration = Field(
        timedelta(seconds=5), description="A local file is read when it has not changed for so long."
    )
    done_marker: str | None = Field(
        None,
        min_length=1,
        description="A file is read when another one is there that has this behind its name, such as .done",
    )
    after_load: Literal["keep", "archive", "delete"] = Field(
        "keep",
        description="What happens to a loaded file. archive: it moves to _archive/ in the landing zone.",
    )

    @model_validator(mode="before")
    @classmethod
    def _set_tabs(cls, data: Any) -> Any:
        """Give .tsv its delimiter, unless the block has one."""
        files, csv = (data.get("files"), data.get("csv", {})) if isinstance(data, dict) else (None, None)
        if isinstance(files, str) and isinstance(csv, dict) and _ending(files) == _TABS:
            return {**data, "csv": {"delimiter": "\t", **csv}}
        return data

    @model_validator(mode="after")
    def _check_together(self) -> Files:
        if self.load == "upsert" and not self.key:
            raise mistake("upsert needs a key", "Add for example: key: [id]", key="load")
        if self.load in ("append", "replace") and self.key:
            raise mistake(f"a key has no meaning with load: {self.load}", "Remove one of them.", key="key")
        if self._suffix_format() is None and self.format is None:
            raise mistake(
                f"the format of {self.files!r} is not known from its ending",
                "Add format: csv, jsonl or parquet.",
                key="files",
            )
        return self

    def _suffix_format(self) -> str | None:
        return FORMATS.get(_ending(self.files))

    @property
    def file_format(self) -> str:
        """csv, jsonl or parquet."""
        return self.format or str(self._suffix_format())

    def zone(self, project: Project) -> str:
        """The URI below which the files arrive."""
        return self.landing_zone or project.landing_zone

    @property
    def load_mode(self) -> str:
        """upsert, append or replace."""
        return self.load or ("upsert" if self.key else "append")
