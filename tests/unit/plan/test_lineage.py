"""Which nodes a test holds back, against a slow and obvious way to find out."""

from __future__ import annotations

import random

import pytest

from orrery.plan.lineage import Lineage


def random_graph(generator: random.Random) -> dict[str, list[str]]:
    """Parents of each node; parents come first."""
    count = generator.randint(1, 18)
    density = generator.choice([0.05, 0.15, 0.4])
    return {f"n{i}": [f"n{j}" for j in range(i) if generator.random() < density] for i in range(count)}


def ancestors(parents: dict[str, list[str]], node: str) -> set[str]:
    return set(parents[node]).union(*(ancestors(parents, parent) for parent in parents[node]), set())


def first_common_descendants(parents: dict[str, list[str]], tested: list[str]) -> set[str]:
    above = {node: ancestors(parents, node) for node in parents}
    common = {node for node in parents if tested and set(tested) <= above[node]}
    return {node for node in common if not above[node] & common}


@pytest.mark.parametrize("seed", range(60))
def test_against_brute_force(seed: int) -> None:
    generator = random.Random(seed)
    parents = random_graph(generator)
    lineage = Lineage(parents)
    for size in (0, 1, 1, 2, 2, 3, 4):
        tested = generator.sample(sorted(parents), min(size, len(parents)))
        found = lineage.gated_by(tested)
        assert len(found) == len(set(found))
        assert set(found) == first_common_descendants(parents, tested), tested


def test_children() -> None:
    assert Lineage({"a": [], "b": ["a"], "c": ["a", "b"]}).children == {"a": ["b", "c"], "b": ["c"], "c": []}
