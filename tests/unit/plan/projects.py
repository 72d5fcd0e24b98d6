"""Pipelines over manifests written by hand, and random ones."""

from __future__ import annotations

import random
from typing import Any

from orrery.config.document import Document
from orrery.config.loader import LoadedPipeline
from orrery.config.pipeline import Pipeline
from orrery.manifest.slim import slim_manifest
from orrery.plan.model import PipelinePlan
from orrery.plan.planner import plan_pipeline
from unit.manifest.resources import Resource, full_manifest, resource

FRESH = {"warn_after": {"count": 2, "period": "hour"}}


def plan(
    *resources: Resource,
    stages: dict[str, set[str]] | None = None,
    groups: Any = (),
    ingest: Any = (),
    runs: Any = (),
    chunk_size: int | None = None,
    hooks: Any = None,
    elementary: bool = False,
    **settings: Any,
) -> PipelinePlan:
    """The plan of a pipeline that selects all of `resources`; `settings` are keys of its file.

    `ingest` are the unique ids of sources that files fill, in chunks of `chunk_size`, or whole entries;
    `runs` are those of exposures, `hooks` the code of hooks by unique id and moment, `elementary` tells
    whether it is installed.
    """
    manifest = full_manifest(*resources, groups=groups)
    slim = slim_manifest(manifest, {item["unique_id"] for item in resources}, stages or {})
    slim["ingest"] = [
        {
            "name": uid.split(".", 2)[2].replace(".", "__"),
            "kind": "files",
            "block": {"files": "a.csv", "chunk_size": chunk_size},
            "sources": [uid],
            "after": [],
        }
        if isinstance(uid, str)
        else uid
        for uid in ingest
    ]
    slim["runs"] = list(runs)
    slim["elementary"] = elementary
    slim["hooks"] |= hooks or {}
    own = dict.fromkeys(stages or {}, ("path:x",))
    config = Pipeline.model_validate({"select": "*", "stages": own, **settings})
    document = Document("dbt/pipelines/shop.yml", {}, {}, {}, ())
    return plan_pipeline(LoadedPipeline("shop", config, document), slim)


def edges(of: PipelinePlan) -> dict[str, set[str]]:
    """What each task waits for."""
    return {task_id: set(task.upstream) for task_id, task in of.tasks.items()}


def random_resources(seed: int) -> list[Resource]:
    """Sources, seeds (some make a source's table), models, snapshots, functions, tests of 0 to 4 nodes."""
    generator = random.Random(seed)
    sources = [
        resource(
            "source",
            f"app.s{i}",
            relation_name=f"table_{i}",
            freshness=generator.choice([None, FRESH]),
        )
        for i in range(generator.randint(0, 4))
    ]
    seeds = [
        resource("seed", f"seed_{i}", relation_name=f"table_{generator.randint(0, 8)}")
        for i in range(generator.randint(0, 3))
    ]
    built: list[Resource] = [*seeds]
    for i in range(generator.randint(1, 18)):
        readable = [*sources, *built]
        parents = generator.sample(readable, min(len(readable), generator.randint(0, 3)))
        built.append(
            resource(
                generator.choice(["model", "model", "model", "snapshot", "function"]),
                f"n{i}",
                [parent["unique_id"] for parent in parents],
                # Some models make the table of a source themselves, even of one that they read.
                relation_name=f"table_{generator.randint(0, 8)}" if generator.random() < 0.2 else f"n{i}",
                config={"materialized": generator.choice(["view", "ephemeral"])},
            )
        )
    tests = []
    for i in range(generator.randint(0, 25)):
        nodes = [*sources, *built]
        parents = generator.sample(nodes, min(len(nodes), generator.choice([0, 1, 1, 1, 2, 2, 3, 4])))
        tests.append(resource("test", f"t{i}", [parent["unique_id"] for parent in parents]))
    models = [item["unique_id"] for item in built if item["resource_type"] == "model"]
    tests += [
        resource("unit_test", f"u{i}", [generator.choice(models)])
        for i in range(generator.randint(0, 4))
        if models
    ]
    return [*sources, *built, *tests]
