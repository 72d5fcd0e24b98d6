"""The choices of one run, made in the trigger form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orrery.config.errors import OrreryError, suggest
from orrery.config.selection import ONLY_SELECTORS, option_in
from orrery.config.stores import Place

SELECT = "select"
EXCLUDE = "exclude"
FULL_REFRESH = "full_refresh"
VARS = "vars"
# In the schema of the param VARS: those of the pipeline's file.
PIPELINE_VARS = "pipeline_vars"
SKIP_STAGES = "skip_stages"
SKIPPED_STAGE = "This run leaves out the stage {!r} (skip_stages)."
THREADS = "threads"
URI = "uri"
OPTIONS = (SELECT, EXCLUDE, FULL_REFRESH, VARS, SKIP_STAGES, THREADS, URI)
MAX_THREADS = 64


class OptionsError(OrreryError):
    """A choice of the run is refused; nothing has been started."""


@dataclass(frozen=True)
class RunOptions:
    """Validated values of the trigger form.

    `select` and `exclude` are dbt selections, split at blanks; `variables` are dbt's vars; `threads` is
    the number of dbt's threads, None for the profile's own; `uri` is the one object that the run is for,
    which dbt has as a variable, too.
    """

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    full_refresh: bool = False
    variables: Mapping[str, Any] | None = None
    skip_stages: frozenset[str] = frozenset()
    threads: int | None = None
    uri: str | None = None

    @property
    def narrowed(self) -> bool:
        """Whether the run is about a part of the pipeline only."""
        return bool(self.select or self.exclude)

    @property
    def choices(self) -> str:
        """The choices as one text, empty for a run without any: runs with the same text do the same work.

        Of `vars` there are the names and a digest, as the values are nobody else's business; which object
        the run is for makes no difference.
        """
        variables = {name: value for name, value in (self.variables or {}).items() if name != URI}
        told = {
            SELECT: " ".join(self.select),
            EXCLUDE: " ".join(self.exclude),
            FULL_REFRESH: "yes" if self.full_refresh else "",
            VARS: f"{' '.join(sorted(variables))} ({_digest(variables)})" if variables else "",
            SKIP_STAGES: " ".join(sorted(self.skip_stages)),
            THREADS: str(self.threads or ""),
            URI: "yes" if self.uri else "",
        }
        return ", ".join(f"{name}: {value}" for name, value in told.items() if value)

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> RunOptions:
        """The options of the run that a task's context tells of; raises OptionsError.

        Airflow checks the types of the form's values; what else is in the conf of a run it accepts.
        """
        for key in context["dag_run"].conf or {}:
            if key not in OPTIONS:
                raise OptionsError(
                    f"Unknown choice {key!r} in the configuration of this run.\n"
                    f"  {suggest(key, OPTIONS, 'choice')}"
                )
        return cls.from_params(context["params"], pipeline_vars(context))

    @classmethod
    def from_params(cls, params: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> RunOptions:
        """The options in a run's params; raises OptionsError.

        :param given: the pipeline's vars, which those of the run go over
        """
        variables, threads = params.get(VARS), params.get(THREADS)
        if variables is not None and not isinstance(variables, dict):
            raise OptionsError(f"{VARS} is no JSON object.\n  Write for example: {{'day': '2026-01-31'}}")
        uri = _uri(params.get(URI))
        # The models and tests of a run for one object may ask which.
        variables = {**(given or {}), **({URI: uri} if uri else {}), **(variables or {})}
        return cls(
            select=_selection(SELECT, params.get(SELECT)),
            exclude=_selection(EXCLUDE, params.get(EXCLUDE)),
            full_refresh=bool(params.get(FULL_REFRESH)),
            variables=variables or None,
            skip_stages=frozenset(params.get(SKIP_STAGES) or ()),
            threads=threads,
            uri=uri,
        )


def pipeline_vars(context: Mapping[str, Any]) -> dict[str, Any]:
    """The vars of the pipeline's file, which the form of its DAG tells."""
    dag = context.get("dag")
    # Airflow puts the choice of the run in the place of the param's default, but leaves its schema alone.
    form = dag.params.get_param(VARS) if dag and VARS in dag.params else None
    return dict(form.schema.get(PIPELINE_VARS) or {}) if form else {}


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _uri(value: str | None) -> str | None:
    if value is not None:
        try:
            Place.parse(value)
        except ValueError as error:
            raise OptionsError(f"{URI}: {error}.\n  Write for example s3://bucket/orders/1.csv") from None
    return value


def _selection(name: str, value: str | None) -> tuple[str, ...]:
    selection = value or ""
    if option := option_in(selection):
        raise OptionsError(f"{name} cannot contain the option {option!r}.\n  {ONLY_SELECTORS}")
    return tuple(selection.split())
