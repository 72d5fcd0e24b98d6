"""The `publish` block of a pipeline: what is kept of its runs for people, and where."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from orrery.config.block import Block, mistake
from orrery.config.environment import environment
from orrery.config.project import Project
from orrery.config.stores import Place, check_place


class Publish(Block):
    """What a run publishes after everything else."""

    docs: bool = Field(True, description="dbt's documentation as one HTML file, index.html.")
    artifacts: bool = Field(
        True, description="manifest.json, run_results.json, sources.json and catalog.json of the run."
    )
    elementary: bool = Field(
        False,
        description="Elementary's report on data quality, elementary.html; skipped unless its dbt package "
        "is installed.",
    )
    to: Annotated[str, AfterValidator(check_place)] | None = Field(
        None,
        description="The folder or bucket that takes it, such as s3://my_aws@reports/booking; by default "
        "published/<pipeline> in dbt's target folder. With ORRERY_ENVIRONMENT=prod, the folder prod in it.",
    )
    keep: int = Field(10, ge=1, description="How many runs are kept; older ones are deleted.")

    @model_validator(mode="after")
    def _check_together(self) -> Publish:
        if not (self.docs or self.artifacts or self.elementary):
            raise mistake(
                "nothing is to be published",
                "Set docs, artifacts or elementary to true, or remove publish.",
            )
        return self

    def place(self, project: Project, pipeline: str) -> Place:
        """Where the pipeline publishes to.

        All environments read the same `to`, so each gets a folder of its own in it: they must not replace
        each other's latest files or delete each other's runs. The default place has the pipeline's full name.
        """
        if self.to is None:
            return Place.parse(f"file://{project.target_dir.absolute()}/published/{pipeline}")
        place = Place.parse(self.to)
        return place.below(environment()) if environment() else place
