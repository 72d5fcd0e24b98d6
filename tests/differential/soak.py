"""The long search: `./orrery test --soak MINUTES` draws projects, runs and hands until the time is over.

Each counterexample is printed with the seed that finds it again and, shrunken, as Python for a regression
test.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import click
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import FlakyFailure

from differential.compare import Difference
from differential.drawn import cases
from differential.hands import handled
from differential.lab import Counts, Lab, lab
from differential.told import as_code

# How many projects are drawn from one seed.
_DRAWN = 20
Try = Callable[[Any], list[Difference]]


class Counterexample(AssertionError):
    """Something is not as it should be."""


def search(attempt: Try, drawn: Any, seed: int, *, most: int = _DRAWN, shrink: bool = True) -> str | None:
    """Try what is drawn; returns the shrunken counterexample with its differences, if there is one."""
    found: list[str] = []

    @seeded(seed)
    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        print_blob=False,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn)
    def each(value: Any) -> None:
        if differences := attempt(value):
            told = "\n".join([as_code(value), *(f"  {difference}" for difference in differences)])
            if shrink and not found:
                click.echo(f"Found, and now shrunken, which may take minutes:\n{told}")
            # The last one is the smallest.
            found[:] = [told]
            raise Counterexample

    try:
        each()
    except Counterexample:
        return found[0]
    except FlakyFailure:
        return f"{found[0]}\n  It does not happen each time, and is not shrunken."
    return None


def searches(where: Lab, nodes: int) -> dict[str, tuple[Try, Any]]:
    """The two searches: `cases` are runs that nobody touches, `hands` are laid on one run."""
    return {
        "cases": (where.differences, cases(nodes)),
        "hands": (where.after_hands, handled(min(nodes, 8))),
    }


@click.command()
@click.argument("minutes", type=float)
@click.option("--seed", type=int, help="The first seed; the next ones count up from it.")
@click.option("--only", type=click.Choice(["cases", "hands"]), help="One of the two searches.")
@click.option("--nodes", default=40, help="The greatest number of nodes of a project.", show_default=True)
def main(minutes: float, seed: int | None, only: str | None, nodes: int) -> None:
    """Search for MINUTES; exit code 1 if anything was found."""
    until = time.monotonic() + 60 * minutes
    number = random.randrange(10**6) if seed is None else seed
    found = 0
    with lab() as where:
        while time.monotonic() < until:
            for name, (attempt, drawn) in searches(where, nodes).items():
                if only not in (None, name):
                    continue
                if example := search(attempt, drawn, number):
                    found += 1
                    click.echo(f"Counterexample: --seed {number} --only {name} --nodes {nodes}\n{example}")
                click.echo(f"seed {number}, {name}: {told(where.counts)}, {found} counterexamples")
            number += 1
    raise SystemExit(bool(found))


def told(counts: Counts) -> str:
    """What has been compared so far, in words."""
    return f"{counts.cases} projects, {counts.nodes} nodes, {counts.runs} runs, {counts.hands} hands"


if __name__ == "__main__":
    main()
