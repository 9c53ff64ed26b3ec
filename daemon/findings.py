"""What a cross-check works with: where its findings go, and the well-bound rows with their paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from daemon.binder import Broken, Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Row(Protocol):
    """A table of the site file that others refer to by its id."""

    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Row)


@dataclass(frozen=True, slots=True)
class Findings:
    """Problems make the file unusable; warnings do not."""

    problems: list[Problem]
    warnings: list[Problem] = field(default_factory=list)

    def wrong(self, path: str, message: str) -> None:
        self.problems.append(Problem(path, message))

    def warn(self, path: str, message: str) -> None:
        self.warnings.append(Problem(path, message))

    def refers(self, path: str, name: str, kind: str, table: Sequence[Row]) -> bool:
        """Whether `name` is the id of a row of `table`; if not, that is a problem."""
        known = [row.id for row in table]
        if name not in known:
            self.wrong(path, f"there is no {kind} {name!r}{nearest(name, known)}")
        return name in known


def rows(name: str, table: Sequence[R]) -> Iterator[tuple[str, R]]:
    """(path, row) of each row that could be bound, as (`channel[3]`, ...)."""
    for i, row in enumerate(table):
        if is_whole(row):
            yield f"{name}[{i}]", row


def is_whole(table: object) -> bool:
    """Whether a table could be bound."""
    return not isinstance(table, Broken)


def by_id(table: Sequence[R]) -> dict[str, R]:
    """The rows that could be bound, by id."""
    return {row.id: row for _, row in rows("", table)}
