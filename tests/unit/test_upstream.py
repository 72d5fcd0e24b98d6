"""What is used of other projects that is no public interface of theirs is there as it is used.

What Orrery overrides of it would otherwise be ignored without a word once it has another name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property
from inspect import getattr_static, getsource, signature, unwrap
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.sdk.execution_time.context import AssetStateStoreAccessor
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from dbt.cli import main, requires
from dbt.compilation import Linker
from dbt.contracts.files import ParseFileType, SchemaSourceFile
from dbt.contracts.graph.manifest import Manifest
from dbt.contracts.graph.nodes import ModelNode
from dbt.parser.manifest import ManifestLoader
from dbt.parser.partial import PartialParsing, key_to_prefix
from dbt.parser.sources import SourcePatcher
from dbt.plugins import manager
from dbt.plugins.manager import PluginManager
from dbt.task.build import BuildTask
from dbt.task.run import MicrobatchModelRunner, RunTask
from dbt.task.test import TestTask
from dbt_common import invocation
from dbt_common.behavior_flags import BehaviorFlagRendered
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from orrery.alert.send import _RateLimit
from orrery.execute.reporter import FAIL_FAST
from orrery.ingest.kubernetes import JobOperator
from orrery.manifest import outline, plugins, quick_dbt, var_parsing

SELF, CONTEXT = object(), object()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (KubernetesPodOperator._get_pod_from_task_state_store, JobOperator._get_pod_from_task_state_store),
        (RateLimitErrorRetryHandler._can_retry, _RateLimit._can_retry),
    ],
)
def test_what_is_overridden_is_called_alike(theirs: Callable[..., Any], ours: Callable[..., Any]) -> None:
    assert ours is not theirs
    assert [(each.name, each.kind, each.default) for each in signature(ours).parameters.values()] == [
        (each.name, each.kind, each.default) for each in signature(theirs).parameters.values()
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "keywords"),
    [
        (KubernetesPodOperator._set_name, ("dbt",), {}),
        (KubernetesPodOperator._build_find_pod_label_selector, (SELF, CONTEXT), {"exclude_checked": False}),
        # Not private, but in modules that are.
        (RuntimeTaskInstance.get_task_states, (), {"dag_id": "", "task_ids": [], "run_ids": []}),
        (AssetStateStoreAccessor, (), {"name": ""}),
        (AssetStateStoreAccessor.get, (SELF, ""), {}),
        (AssetStateStoreAccessor.set, (SELF, "", {}), {}),
        (AssetStateStoreAccessor.delete, (SELF, ""), {}),
    ],
)
def test_what_is_called_takes_it(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    signature(function).bind(*arguments, **keywords)


def test_the_operator_of_spark_knows_the_namespace_that_it_runs_in() -> None:
    assert isinstance(getattr_static(SparkKubernetesOperator, "_incluster_namespace"), cached_property)


def test_the_trigger_knows_whether_it_has_fired() -> None:
    trigger = KubernetesPodTrigger("pod", "default", datetime.now(UTC), "base")
    assert trigger._fired_event is False


def test_dbt_asks_for_its_plugins_where_they_are_restricted(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.only_installed()
    assert getattr_static(PluginManager, "get_prefixed_modules").__func__ is plugins._modules
    assert PluginManager.PLUGIN_MODULE_PREFIX == "dbt_"
    monkeypatch.setattr(manager, "test_caching_enabled", lambda: False)
    monkeypatch.setattr(PluginManager, "get_prefixed_modules", dict)
    # It asks nothing else, so that nothing was found.
    assert PluginManager.from_modules("tiny").hooks == {}


def test_dbt_parses_as_it_is_watched() -> None:
    """What orrery.manifest.var_parsing stands in for has the parts that it relies on."""
    parsers = [(parser.parse_file, (SELF, object())) for parser in var_parsing.parsers()]
    assert {parser.__name__ for parser in var_parsing.parsers()} == {
        *("SQLParser", "SchemaParser", "SnapshotParser"),
    }
    for function, arguments in (
        (ManifestLoader, (object(), object(), object(), object())),
        (ManifestLoader.build_manifest_state_check, (SELF,)),
        (ManifestLoader.is_partial_parsable, (SELF, object())),
        (ManifestLoader.load, (SELF,)),
        (ManifestLoader.write_manifest_for_partial_parse, (SELF,)),
        (SourcePatcher.patch_source, (SELF, object(), None)),
        (SourcePatcher.parse_source, (SELF, object())),
        (SchemaSourceFile.add_env_var, (SELF, "", "", "")),
        *parsers,
    ):
        signature(unwrap(function)).bind(*arguments)
    signature(unwrap(SourcePatcher.parse_source_test)).bind(SELF, target=object(), data_test={}, column=None)
    attributes = ("root_project", "all_projects", "macro_hook", "file_diff", "saved_manifest", "manifest")
    assert set(attributes) <= set(ManifestLoader.__init__.__code__.co_names)
    manifest = Manifest()
    assert manifest.env_vars == {}
    assert all(hasattr(manifest, name) for name in outline.KINDS)
    assert {field.name for field in fields(ModelNode)} >= outline.OWN
    assert str(ParseFileType.Schema) == "schema"
    # Where it takes its vars, and compares them with those of the saved parse.
    assert "flags = Flags(ctx)" in getsource(unwrap(requires.preflight))
    signature(unwrap(requires.setup_manifest)).bind(object(), write=True, write_perf_info=False)
    assert "setup_manifest(ctx, " in getsource(requires.manifest)
    assert "config.cli_vars" in getsource(unwrap(ManifestLoader.build_manifest_state_check))
    compared = "self.manifest.state_check.vars_hash != manifest.state_check.vars_hash"
    assert compared in getsource(unwrap(ManifestLoader.is_partial_parsable))
    # Files that have read an environment variable which has gone are parsed again.
    parsing = getsource(PartialParsing)
    assert all(f"in self.env_vars_changed_{kind}_files" in parsing for kind in ("source", "schema"))
    assert "changed.append(file_id)" in parsing
    # The kinds of elements that are then found by their names.
    found = set(re.findall(r'handle_change\("(\w+)"', parsing)) | {"sources", *key_to_prefix}
    assert found >= var_parsing.DESCRIBED


def test_dbts_tasks_have_what_an_invocation_extends() -> None:
    for task in (BuildTask, TestTask):
        assert issubclass(task, RunTask)
        signature(task).bind(object(), object(), object())
    assert "not get_flags().skip_nodes_if_on_run_start_fails" in getsource(RunTask.execute_with_hooks)
    # What it says of nodes that it leaves out with fail_fast.
    assert f'message = "{FAIL_FAST}"' in getsource(RunTask.execute_nodes)
    # How it hands over batches: by name, and for their results.
    for source in (getsource(MicrobatchModelRunner.execute), getsource(RunTask)):
        assert not re.search(r"_submit_batch\(\s*+(?!node=|self,)", source.replace("def ", ""))
    submit = getsource(RunTask._submit_batch)
    assert submit.count("batch_results") == submit.count("batch_results.append") + 1
    # What `dbt retry` sets.
    assert {"batch_map", "original_invocation_started_at"} <= set(RunTask.__init__.__code__.co_names)
    for method, arguments in (
        (RunTask.compile_manifest, (SELF,)),
        (RunTask.populate_microbatch_batches, (SELF, set())),
        (RunTask.run, (SELF,)),
        (RunTask.before_run, (SELF, object(), set())),
        (RunTask.after_run, (SELF, object(), [])),
        (RunTask.execute_with_hooks, (SELF, frozenset())),
        (RunTask.execute_nodes, (SELF,)),
        (RunTask._runtime_initialize, (SELF,)),
        (Linker.link_graph, (SELF, object())),
        (Linker.add_test_edges_2, (SELF, object())),
    ):
        signature(method).bind(*arguments)
    # dbt looks the classes up when a command begins, so that others can stand in their place.
    for command in ("build", "run", "test"):
        assert f"from dbt.task.{command} import" in getsource(main)
    assert "_INVOCATION_ID" in vars(invocation)


def test_dbt_asks_itself_which_module_defines_a_behavior_flag() -> None:
    assert "_default_source()" in getsource(BehaviorFlagRendered.__init__)
    quick_dbt.hurry()
    flag: Any = {"name": "some_flag", "default": False, "description": "What it does."}
    assert BehaviorFlagRendered(flag, {})._behavior_change_event.flag_source == __name__
