"""The operators of the stage `publish`."""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.publish import Publish
from orrery.execute.ending import await_others
from orrery.execute.options import SKIPPED_STAGE, OptionsError, RunOptions
from orrery.execute.results import RESULT_KEY, outcome
from orrery.execute.trial import leave_trials_alone
from orrery.ingest.errors import explained

if TYPE_CHECKING:
    from airflow.sdk import Context


class PublishOperator(BaseOperator):
    """Publishes something of a run once all other tasks have ended, however they did.

    It decides nothing about the run: that has failed when a task before has, and a failure to publish is
    no failure of the run.

    :param stage: the stage that the task is in; a run may leave it out
    :param publish: what is published, and where
    :param documented: unique ids of the seeds, snapshots, models and sources of the pipeline
    """

    ui_color = "#dcefe9"

    def __init__(self, *, stage: str, publish: Publish, documented: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # No `nodes`: a run that is about some nodes only is published, too.
        self.stage, self.publish, self.documented = stage, publish, documented
        self.as_teardown(on_failure_fail_dagrun=False)

    def execute(self, context: Context) -> None:
        """Publish; raises AirflowSkipException when the run leaves it out, or when there is nothing."""
        leave_trials_alone(context)
        try:
            options = RunOptions.from_context(context)
        except OptionsError as error:
            raise AirflowSkipException(f"The run was refused: {error}") from None
        if self.stage in options.skip_stages:
            raise AirflowSkipException(SKIPPED_STAGE.format(self.stage))
        if reason := self._why_not():
            context["ti"].xcom_push(key=RESULT_KEY, value=outcome(reason, status="skipped"))
            raise AirflowSkipException(reason)
        await_others(context["ti"])
        with explained(context):
            self._publish(self._files(context, options), context)

    @abstractmethod
    def _files(self, context: Context, options: RunOptions) -> Mapping[str, bytes]:
        """What is published, by name."""

    def _instead_of(self) -> tuple[str, ...]:
        """The names of all files that this task may publish."""
        return ()

    def _why_not(self) -> str | None:
        """Why there is nothing to publish, whatever the run does."""
        return None

    def _publish(self, files: Mapping[str, bytes], context: Context) -> None:
        # Airflow's connections, and the clients of stores; parsing must not pay for them.
        from orrery.execute.profile import use_connection
        from orrery.execute.run_folder import folder_of
        from orrery.publish.leaks import check_files
        from orrery.publish.target import PublishTarget, run_name

        run, project = context["dag_run"], Project.find()
        # This process may have called no dbt: only now it knows dbt's secrets.
        use_connection(project, folder_of(project, run.dag_id, run.run_id))
        check_files(files)
        about = {"pipeline": run.dag_id, "run_id": run.run_id, "run_after": run.run_after.isoformat()}
        place = self.publish.place(project, run.dag_id)
        target = PublishTarget(place, run_name(run.run_id, run.run_after), about)
        uri = target.publish(files, instead_of=self._instead_of())
        what = f"{uri}/{next(iter(files))}" if len(files) == 1 else f"{uri}: {', '.join(sorted(files))}"
        try:
            old = target.forget(self.publish.keep)
        except OrreryError as error:
            # What was to be published, is.
            self.log.warning("Older runs are not deleted: %s", error)
        else:
            self.log.info("%s published; %s older runs deleted %s", what, len(old), ", ".join(old))
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(what))


class DocsOperator(PublishOperator):
    """Publishes dbt's documentation of the pipeline as one HTML file."""

    custom_operator_name = "dbt docs"

    def _files(self, context: Context, options: RunOptions) -> Mapping[str, bytes]:
        from orrery.publish.docs import publishing_dbt, write_docs
        from orrery.publish.target import DOCS

        dbt = publishing_dbt(Project.find(), context["ti"], options)
        return {DOCS: write_docs(dbt, self.documented).read_bytes()}


class ArtifactsOperator(PublishOperator):
    """Publishes what dbt has written of the run."""

    custom_operator_name = "dbt artifacts"

    def _instead_of(self) -> tuple[str, ...]:
        from orrery.publish.target import ARTIFACTS

        return ARTIFACTS

    def _files(self, context: Context, options: RunOptions) -> Mapping[str, bytes]:
        from orrery.execute.run_folder import folder_of
        from orrery.publish.artifacts import read_artifacts
        from orrery.publish.docs import publishing_dbt

        ti, project = context["ti"], Project.find()
        folder = folder_of(project, ti.dag_id, ti.run_id)
        files = read_artifacts(folder)
        if not files.keys() & {"run_results.json", "sources.json"}:
            raise AirflowSkipException(
                f"dbt has left no results of this run on {socket.gethostname()}: it ran nothing, or it ran "
                f"on another machine. Let all workers share {project.relative(folder.parents[1])}."
            )
        if "manifest.json" not in files:
            # Each of the tasks of per_model has had one of its own.
            publishing_dbt(project, ti, options).parse()
            files = read_artifacts(folder)
        return files


class ElementaryOperator(PublishOperator):
    """Publishes Elementary's report, with what all runs of all pipelines have told it."""

    custom_operator_name = "Elementary"

    def _why_not(self) -> str | None:
        # It brings dbt with it.
        from orrery.execute.elementary import why_absent

        return why_absent(Project.find())

    def _files(self, context: Context, options: RunOptions) -> Mapping[str, bytes]:
        from orrery.publish.elementary import write_report
        from orrery.publish.target import ELEMENTARY

        report = write_report(Project.find(), context["ti"], options)
        return {ELEMENTARY: report.read_bytes()}


OPERATORS: dict[str, type[PublishOperator]] = {
    "docs": DocsOperator,
    "artifacts": ArtifactsOperator,
    "elementary": ElementaryOperator,
}
