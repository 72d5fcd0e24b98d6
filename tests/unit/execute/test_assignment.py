"""What dbt is told of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orrery.config.publish import Publish
from orrery.execute.assignment import Assignment
from orrery.execute.options import RunOptions
from unit.manifest.resources import resource
from unit.plan.projects import plan


@pytest.mark.parametrize(
    ("publish", "elementary", "keep_results"),
    [
        (None, False, False),
        (Publish(), False, True),
        # dbt's results are for the artifacts alone.
        (Publish(artifacts=False), False, False),
        (Publish(elementary=True), True, True),
    ],
)
def test_results_are_kept_for_what_is_published(
    publish: Publish | None, elementary: bool, keep_results: bool
) -> None:
    made = plan(resource("model", "a"), publish=publish)
    ti = SimpleNamespace(run_id="manual__1", log_url="")
    assignment = Assignment.of(made, RunOptions(), ti, began="2026-01-31T00:00:00", batches={})
    assert (assignment.elementary, assignment.keep_results) == (elementary, keep_results)
