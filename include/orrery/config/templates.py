"""Templates of Kubernetes objects in include/templates: Jinja that writes YAML.

Every value is written as quoted YAML, so that none can change the structure of what it is put into.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
)

from orrery.config.dbt_pods import DbtPods
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.kubernetes import Job, Spark
from orrery.config.project import Project
from orrery.config.workload import URI_VARIABLE

# Those that come with this package; a project's own of the same name go first.
SHIPPED = Path(__file__).resolve().parents[2] / "templates"
_WIDTH = sys.maxsize
# By the block: what its template calls it, and the kind of object that it makes.
_KINDS: dict[type, tuple[str, str]] = {
    Job: ("job", "Pod"),
    Spark: ("spark", "SparkApplication"),
    DbtPods: ("pods", "Pod"),
}


class _Quoting(yaml.SafeDumper):
    """Writes texts in double quotes, and everything in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Quoting.add_representer(str, lambda to, text: to.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
_Quoting.add_representer(tuple, lambda to, items: to.represent_list(items))


def render_template(
    project: Project,
    block: Job | Spark | DbtPods,
    *,
    name: str,
    labels: Mapping[str, str],
    uri: str | None = "",
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The Kubernetes object that the template of a block makes.

    :param name: of the object
    :param labels: of the object and of what it starts
    :param uri: the object that the run is about, as ORRERY_URI; None for what has no such variable
    :param given: more that the template knows

    Raises ConfigError, with the place in the template, when there is none or it does not work.
    """
    word, kind = _KINDS[type(block)]
    values = {
        word: block,
        "name": name,
        "labels": dict(labels),
        # Kubernetes would put variables in the place of $(NAME).
        "env": {**block.env, **({} if uri is None else {URI_VARIABLE: uri.replace("$", "$$")})},
        "timeout_seconds": max(int(block.timeout.total_seconds()), 1),
        **(given or {}),
    }
    source = _Source(project, block.template)
    return source.parsed(source.rendered(values), kind)


def check_template(project: Project, block: Job | Spark | DbtPods) -> None:
    """Raise ConfigError when the template of a block cannot be rendered; for checks before anything runs."""
    given = {"image": "check", "command": (), "args": ()} if isinstance(block, DbtPods) else {}
    render_template(project, block, name="check", labels={}, uri=None if given else "", given=given)


class _Source:
    """A template file, and the errors in it."""

    def __init__(self, project: Project, name: str) -> None:
        folders = (project.template_dir, SHIPPED)
        found = [folder / name for folder in folders if (folder / name).is_file()]
        shown = f"{project.relative(project.template_dir)}/{name}"
        if not found:
            known = {path.name for folder in folders for path in folder.glob("*.j2")}
            raise ConfigError([Problem(shown, "no such template", suggest(name, known, "template"))])
        self._path, self._shown, self._folders = found[0], shown, folders

    def rendered(self, values: Mapping[str, Any]) -> str:
        """The text that the template makes of `values`."""
        environment = Environment(
            loader=FileSystemLoader(self._folders),
            undefined=StrictUndefined,
            finalize=_as_yaml,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )
        # Every value is written as JSON writes it (YAML, that is), with or without this filter.
        environment.filters["tojson"] = lambda value: value
        try:
            return environment.get_template(self._path.name).render(values)
        except TemplateSyntaxError as error:
            fix = "See https://jinja.palletsprojects.com/en/stable/templates/"
            self._fail(f"no valid Jinja: {error.message}", fix, error.lineno)
        except TemplateError as error:
            fix = f"The template knows: {', '.join(sorted(values))}, and the keys of the block."
            self._fail(str(error.message), fix, self._line_of(error))
        except (ArithmeticError, LookupError, TypeError, ValueError, yaml.YAMLError) as error:
            what = str(error).replace("\n", " ")
            self._fail(what, "Correct the expression in this line.", self._line_of(error))

    def parsed(self, text: str, kind: str) -> dict[str, Any]:
        """The Kubernetes object in the text that the template made."""
        try:
            # The other loader, in C, does not tell where a mistake is.
            found = yaml.load(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            lines = text.splitlines()
            line = lines[mark.line].strip() if mark and mark.line < len(lines) else ""
            self._fail(
                f"what it makes is no YAML: {error.problem}: {line}",
                'Write values alone, {{ a ~ "/" ~ b }} and not {{ a }}/{{ b }}; they bring their own quotes.',
                self._lines_like(line),
            )
        if not isinstance(found, dict) or found.get("kind") != kind:
            got = found.get("kind") if isinstance(found, dict) else None
            self._fail(f"makes {got or 'no Kubernetes object'}", f"Make one object with kind: {kind}")
        # Without YAML's aliases, of which a change in one place would show in another.
        copy: dict[str, Any] = json.loads(json.dumps(found, default=str))
        return copy

    def _line_of(self, error: Exception) -> int:
        """The line of the template in which `error` was raised; 0 when it is not known."""
        frames = traceback.walk_tb(error.__traceback__)
        return max((line for frame, line in frames if frame.f_code.co_filename == str(self._path)), default=0)

    def _lines_like(self, line: str) -> int:
        """The line of the template that begins as `line` does; 0 when there is not exactly one."""
        key = line.partition(":")[0]
        lines = self._path.read_text(encoding="utf-8").splitlines()
        found = [number for number, text in enumerate(lines, 1) if key and text.strip().startswith(f"{key}:")]
        return found[0] if len(found) == 1 else 0

    def _fail(self, what: str, fix: str, line: int = 0) -> NoReturn:
        text = self._path.read_text(encoding="utf-8").splitlines()
        source = text[line - 1] if 0 < line <= len(text) else ""
        indent = len(source) - len(source.lstrip())
        raise ConfigError(
            [Problem(self._shown, what, fix, line, indent + 1, source, max(len(source.strip()), 1))]
        ) from None


def _as_yaml(value: Any) -> str:
    if isinstance(value, Undefined):
        str(value)  # raises what is missing
    text: str = yaml.dump(
        value, Dumper=_Quoting, default_flow_style=True, width=_WIDTH, allow_unicode=False, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")
