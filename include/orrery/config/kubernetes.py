"""What runs in a Kubernetes cluster: the blocks `job` (one pod) and `spark` (a SparkApplication)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from orrery.config.block import Block, Names, mistake
from orrery.config.workload import Resources, Template, Workload

_MEMORY = re.compile(r"\d+(k|m|g|t|kb|mb|gb|tb)", re.IGNORECASE)


def _check_memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise mistake(
            f"{value!r} is no size of memory", "Write it as Spark does, such as 512m or 4g (not Mi, Gi)."
        )
    return value


Memory = Annotated[str, AfterValidator(_check_memory)]


class Job(Workload):
    """A pod that runs one container to its end."""

    command: Names = Field((), description="What runs, in place of the image's entrypoint.")
    resources: Resources = Field(Resources(), description="CPU and memory.")
    template: Template = Field("job.yaml.j2", description="The file in include/templates that makes the pod.")


class Driver(Block):
    """What the driver gets."""

    cores: int = Field(1, ge=1, description="The number of cores.")
    memory: Memory = Field("1g", description="Memory as Spark writes it, such as 512m or 4g.")


class Executor(Driver):
    """What each executor gets."""

    instances: int = Field(1, ge=1, description="The number of executors.")


class Spark(Workload):
    """An application that the Spark operator runs."""

    application: str = Field(
        min_length=1, description="The file that runs (.py, .R or .jar), such as local:///opt/app/load.py"
    )
    main_class: str | None = Field(None, min_length=1, description="The class that runs, of a .jar file.")
    driver: Driver = Field(Driver(), description="Size of the driver.")
    executor: Executor = Field(Executor(), description="Size and number of the executors.")
    spark_version: str = Field("3.5.6", min_length=1, description="The version of Spark in the image.")
    template: Template = Field(
        "spark.yaml.j2", description="The file in include/templates that makes the SparkApplication."
    )

    @model_validator(mode="after")
    def _check_main_class(self) -> Spark:
        if self.language == "Scala" and not self.main_class:
            raise mistake(f"{self.application!r} needs a main_class", "Add main_class: ...", "application")
        if self.language != "Scala" and self.main_class:
            raise mistake("only a .jar file has a main_class", "Remove it.", "main_class")
        return self

    @property
    def language(self) -> str:
        """The type of the application in Spark's words; Java counts as Scala, which runs the same way."""
        endings = {".py": "Python", ".zip": "Python", ".egg": "Python", ".r": "R"}
        name = self.application.lower()
        return next((kind for end, kind in endings.items() if name.endswith(end)), "Scala")


class JobIngest(Block):
    """Runs a job in Kubernetes."""

    job: Job


class SparkIngest(Block):
    """Runs a Spark application in Kubernetes."""

    spark: Spark
