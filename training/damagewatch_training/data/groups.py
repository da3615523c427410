"""What belongs together: names joined one to another, and to all that those were joined to (union and find)."""

from __future__ import annotations


class Groups:
    """Groups of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._parent

    def of(self, name: str) -> str:
        """The name that stands for the group of `name`: the same for all of it."""
        root = name
        while (parent := self._parent.setdefault(root, root)) != root:
            root = parent
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: str, other: str) -> None:
        """Puts both, with all that each was joined to, into one group; that of `one` keeps its name."""
        self._parent[self.of(other)] = self.of(one)

    def all(self) -> dict[str, list[str]]:
        """The members of each group, in the order in which they came, by the name that stands for it."""
        members: dict[str, list[str]] = {}
        for name in self._parent:
            members.setdefault(self.of(name), []).append(name)
        return members
