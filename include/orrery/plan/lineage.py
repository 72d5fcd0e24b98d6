"""Which nodes a test holds back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce


class Lineage:
    """Ancestors and descendants of nodes, as bit sets: fast for thousands of nodes.

    `parents` maps every node to its parents and lists each node after all of them.
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        self._names = list(parents)
        self._index = {name: index for index, name in enumerate(self._names)}
        self._parents = [self._mask(parents[name]) for name in self._names]
        self.children: dict[str, list[str]] = {name: [] for name in self._names}
        for name in self._names:
            for parent in parents[name]:
                self.children[parent].append(name)
        self._descendants = [0] * len(self._names)
        for name in reversed(self._names):
            index = self._index[name]
            for child in self.children[name]:
                child_index = self._index[child]
                self._descendants[index] |= self._descendants[child_index] | 1 << child_index

    def gated_by(self, tested: Iterable[str]) -> list[str]:
        """The first nodes that descend from all `tested` nodes.

        This is dbt's own rule for `dbt build`: a test holds back only what descends from every node
        that it reads; anything else could make the graph circular.
        """
        nodes = [self._index[name] for name in tested]
        if not nodes:
            return []
        common = reduce(lambda left, right: left & right, (self._descendants[node] for node in nodes))
        if not common:
            return []
        # Every first common descendant of one node is its child, which is quicker to look through.
        candidates = self.children[self._names[nodes[0]]] if len(nodes) == 1 else self._members(common)
        return [name for name in candidates if not self._parents[self._index[name]] & common]

    def _mask(self, names: Iterable[str]) -> int:
        return reduce(lambda mask, name: mask | 1 << self._index[name], names, 0)

    def _members(self, mask: int) -> list[str]:
        members = []
        while mask:
            lowest = mask & -mask
            members.append(self._names[lowest.bit_length() - 1])
            mask ^= lowest
        return members
