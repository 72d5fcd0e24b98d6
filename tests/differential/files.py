"""The files of a project: small PostgreSQL models whose rows tell what they were made of.

Every relation has the columns `id` (1, 2, 3) and `x`. The `x` of a node sums up all rows of what it reads,
so a node that was built on other data than it should have been has other rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from differential.projects import Check, Node, Project, Source

NAME = "diff"
# Where hooks take down what they saw, and what is broken until it is fixed.
SEEN, SWITCH = "hook_seen", "switch"
_MODULUS = 1_000_003
_ROWS = 3

_HEAD = f"""\
name: {NAME}
version: '1.0'
profile: {NAME}
flags:
  # The check is no command of its own in a build, which runs the hooks once.
  source_freshness_run_project_hooks: false
  send_anonymous_usage_stats: false
"""

_MACROS = (
    # A hook sees the results so far only when the run ends.
    "{% macro saw(hook) %}\n"
    "{% set seen = [] %}\n"
    "{% if execute and results is defined and results %}{% for r in results %}\n"
    "{% do seen.append(r.node.unique_id ~ '=' ~ r.status) %}{% endfor %}{% endif %}\n"
    "insert into {{ target.schema }}." + SEEN + " (hook, invocation, seen)\n"
    "values ('{{ hook }}', '{{ invocation_id }}', '{{ seen | sort | join(' ') }}')\n"
    "{% endmacro %}\n"
    "{% test holds(model, rows=0) %}\n"
    "select n from generate_series(1, {{ rows }}) as n, (select count(*) as c from {{ model }}) as m\n"
    "where m.c >= 0\n"
    "{% endtest %}\n"
)

MADE_TO_FAIL = "made to fail"
_RAISE = f"{{% if execute %}}{{{{ exceptions.raise_compiler_error('{MADE_TO_FAIL}') }}}}{{% endif %}}\n"
_DAY = "model.batch.event_time_start"
_BEGIN = "(modules.datetime.date.today() - modules.datetime.timedelta(days=4)).isoformat()"


def files(project: Project, profile: Mapping[str, object], *, ordered: bool = False) -> dict[str, str]:
    """The text of each file by its path in the dbt project.

    :param profile: the output for dbt's target
    :param ordered: whether dbt is told which seeds make the tables of sources
    """
    written = {
        "dbt_project.yml": _HEAD + _flags(project) + _hooks(project),
        "profiles.yml": json.dumps(
            {NAME: {"target": "dev", "outputs": {"dev": {"type": "postgres", **profile}}}}
        ),
        "macros/all.sql": _MACROS,
    }
    properties: dict[str, list[object]] = {"models": [], "seeds": [], "functions": []}
    unit_tests: list[object] = []
    for node in project.nodes:
        written |= _node_files(node, project)
        if ordered and node.is_model:
            path = f"models/{node.folder}/{node.name}.sql"
            written[path] += _depends_on(node.read, project)
        _describe(node, properties, unit_tests)
    for owner, check in project.checked():
        if check.kind == "singular":
            text = _singular(owner, check)
            written[f"tests/{check.name}.sql"] = text + (
                _depends_on((owner, *check.also), project) if ordered else ""
            )
    document: dict[str, object] = {key: value for key, value in properties.items() if value}
    if unit_tests:
        document["unit_tests"] = unit_tests
    if any(node.grouped for node in project.nodes):
        document["groups"] = [{"name": "crew", "owner": {"name": "Ann", "email": "ann@example.com"}}]
    if project.sources:
        document["sources"] = [_sources(project.sources)]
    written["models/all.yml"] = json.dumps({"version": 2, **document}, indent=1)
    return written


def _depends_on(names: Iterable[str], project: Project) -> str:
    """What tells dbt which seeds come first."""
    makers = project.makers()
    return "".join(f"-- depends_on: {{{{ {_ref(makers[name])} }}}}\n" for name in names if name in makers)


def _flags(project: Project) -> str:
    flags = {"fail_fast": project.fail_fast, "skip_nodes_if_on_run_start_fails": project.strict_hooks}
    return "".join(f"  {flag}: true\n" for flag, wanted in flags.items() if wanted)


def _hooks(project: Project) -> str:
    text = ""
    for when in ("start", "end"):
        hooks = [hook for hook in project.hooks if hook.when == when]
        if hooks:
            lines = []
            for number, hook in enumerate(hooks):
                match hook.fault:
                    case "sql":
                        lines.append("select 1/0")
                    case "compile":
                        lines.append(_RAISE.strip())
                    case None:
                        lines.append(f"{{{{ saw('{when}{number}') }}}}")
            text += f"on-run-{when}: {json.dumps(lines)}\n"
    return text


def _ref(name: str) -> str:
    if name.startswith("app."):
        return f"source('app', '{name.removeprefix('app.')}')"
    base, _, version = name.partition("_v")
    return f"ref('{base}', v={version})" if version else f"ref('{name}')"


def _node_files(node: Node, project: Project) -> dict[str, str]:
    match node.kind:
        case "seed":
            x = "x" if node.fault == "sql" else "1"
            rows = "".join(f"{n},{x},2026-01-01 00:00:00\n" for n in range(1, _ROWS + 1))
            return {f"seeds/{node.name}.csv": f"id,x,at\n{rows}"}
        case "function":
            body = "select no_such_column" if node.fault == "sql" else "select n + 1"
            raising = _RAISE if node.fault == "compile" else ""
            return {f"functions/{node.name}.sql": f"{raising}{body}\n"}
        case "snapshot":
            return {f"snapshots/{node.name}.yml": json.dumps({"snapshots": [_snapshot(node)]}, indent=1)}
    return {f"models/{node.folder}/{node.name}.sql": _model(node, project)}


def _snapshot(node: Node) -> dict[str, object]:
    columns: object = ["no_such_column"] if node.fault == "sql" else "all"
    config: dict[str, object] = {"unique_key": "id", "strategy": "check", "check_cols": columns}
    tests = [_generic(check) for check in node.checks if check.kind == "generic"]
    described = {"name": node.name, "relation": _ref(node.parents[0]), "config": config | _config(node)}
    return described | ({"data_tests": tests} if tests else {})


def _config(node: Node) -> dict[str, object]:
    config: dict[str, object] = {}
    if node.alias:
        config["alias"] = f"{node.name}_alias"
    if node.own_schema:
        config["schema"] = "extra"
    if node.grouped and node.kind not in ("seed", "function"):
        config["group"] = "crew"
    if node.gated:
        config["enabled"] = "{{ not var('less', false) }}"
    return config


def _model(node: Node, project: Project) -> str:
    config = {key: json.dumps(value) for key, value in _config(node).items()}
    config["materialized"] = f"'{'incremental' if node.kind == 'microbatch' else node.kind}'"
    if node.gated:
        config["enabled"] = "not var('less', false)"
    if node.kind == "incremental":
        config["incremental_strategy"] = "'append'"
    if node.kind == "microbatch":
        config |= {
            "incremental_strategy": "'microbatch'",
            "event_time": "'at'",
            "batch_size": "'day'",
            "begin": _BEGIN,
            "unique_key": "'id'",
        }
    settings = ", ".join(f"{key}={value}" for key, value in config.items())
    raising = _RAISE if node.fault == "compile" else ""
    return f"{{{{ config({settings}) }}}}\n{raising}{_select(node, project)}\n"


def _select(node: Node, project: Project) -> str:
    terms, sources = ["n"], [f"generate_series(1, {_ROWS}) as n"]
    if node.kind == "microbatch":
        sources = ["(select " + _batch() + " as n) as batch"]
    functions = [name for name in node.parents if _is_function(name, project)]
    for number, name in enumerate(name for name in node.parents if name not in functions):
        reference = _ref(name)
        if number == 0 and node.swap:
            reference = f"{_ref(node.swap)} if var('swap', false) else {reference}"
        terms.append(f"p{number}.x")
        sources.append(
            f"(select coalesce(sum(x), 0) + count(*) as x from {{{{ {reference} }}}}) as p{number}"
        )
    terms += [f"{{{{ function('{name}') }}}}(1)" for name in functions]
    fault = {
        "sql": "no_such_column",
        "batch": f"1 / (case when {_batch()} = 2 then 0 else 1 end) - 1",
        "broken": f"1 / (select ok from {{{{ target.schema }}}}.{SWITCH}) - 1",
    }.get(node.fault or "", "")
    terms += [fault] if fault else []
    columns = f"n::int as id, (({' + '.join(terms)}) % {_MODULUS})::bigint as x"
    if node.kind == "microbatch":
        columns += f", timestamp '{{{{ {_DAY}.strftime('%Y-%m-%d') }}}}' as at"
    return f"select {columns}\nfrom " + ",\n  ".join(sources)


def _batch() -> str:
    """The number of a microbatch model's batch, from 1."""
    begin = _BEGIN.removesuffix(".isoformat()")
    return f"({{{{ (({_DAY}.date() - {begin}).days if model.batch else 0) + 1 }}}})"


def _is_function(name: str, project: Project) -> bool:
    found = project.by_name.get(name)
    return found is not None and found.kind == "function"


def _describe(node: Node, properties: dict[str, list[object]], unit_tests: list[object]) -> None:
    """Add what stands in the property file about a node."""
    tests = [_generic(check) for check in node.checks if check.kind == "generic"]
    unit_tests += [_unit(node, check) for check in node.checks if check.kind == "unit"]
    entry: dict[str, object] = {"name": node.name}
    if tests:
        entry["data_tests"] = tests
    match node.kind:
        case "seed":
            types = {"x": "bigint", "at": "timestamp"}
            properties["seeds"].append({**entry, "config": {"column_types": types, **_config(node)}})
        case "function":
            properties["functions"].append(
                {
                    "name": node.name,
                    "arguments": [{"name": "n", "data_type": "int"}],
                    "returns": {"data_type": "int"},
                }
            )
        case "snapshot":
            pass
        case _ if node.version is not None:
            base = node.name.partition("_v")[0]
            known = next((e for e in properties["models"] if isinstance(e, dict) and e["name"] == base), None)
            if known is None:
                known = {"name": base, "latest_version": node.version, "versions": []}
                properties["models"].append(known)
            version: dict[str, object] = {"v": node.version}
            known["versions"].append(version | ({"data_tests": tests} if tests else {}))
        case _ if tests:
            properties["models"].append(entry)


def _severity(check: Check) -> str:
    return "warn" if check.warns else "error"


def _generic(check: Check) -> dict[str, object]:
    return {
        "holds": {
            "name": check.name,
            "arguments": {"rows": 0 if check.passes else 2},
            "config": {"severity": _severity(check)},
        }
    }


def _singular(owner: str, check: Check) -> str:
    counts = ", ".join(
        f"(select count(*) as c from {{{{ {_ref(name)} }}}}) as p{number}"
        for number, name in enumerate((owner, *check.also))
    )
    rows = 0 if check.passes else 2
    return (
        f"{{{{ config(severity='{_severity(check)}') }}}}\n"
        f"select n from generate_series(1, {rows}) as n, {counts} where p0.c >= 0\n"
    )


def _unit(node: Node, check: Check) -> dict[str, object]:
    given = [{"input": _ref(name), "rows": [{"id": 1, "x": 1}]} for name in node.parents]
    # Of one row with x = 1 the sum and the number of rows are 2.
    expected = [
        {"id": n, "x": (n + 2 * len(node.parents) + (0 if check.passes else 1)) % _MODULUS}
        for n in range(1, _ROWS + 1)
    ]
    return {"name": check.name, "model": node.name, "given": given, "expect": {"rows": expected}}


def _sources(sources: Iterable[Source]) -> dict[str, object]:
    never, now = {"count": 1_000_000, "period": "hour"}, {"count": 1, "period": "hour"}
    thresholds: dict[str, dict[str, object]] = {
        "fresh": {"error_after": never},
        "old": {"warn_after": now, "error_after": never},
        "stale": {"error_after": now},
        "unknown": {"error_after": now},
    }
    tables = []
    for source in sources:
        table: dict[str, object] = {"name": source.name}
        if source.made_by:
            table["identifier"] = source.made_by
        if source.age:
            config: dict[str, object] = {"freshness": thresholds[source.age]}
            if source.age != "unknown":
                config["loaded_at_field"] = "at::timestamptz"
            table["config"] = config
        if tests := [_generic(check) for check in source.checks if check.kind == "generic"]:
            table["data_tests"] = tests
        tables.append(table)
    return {"name": "app", "schema": "{{ target.schema }}", "tables": tables}
