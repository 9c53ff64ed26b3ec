"""What may be asked over the control socket, and the client's side of asking."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_S = 120.0  # measuring now may take as long as the slowest logger on the line


class Request(msgspec.Struct, tag_field="do", frozen=True, forbid_unknown_fields=True):
    """A line of the control socket; `do` is the verb, `changes`: it needs the right to change things."""

    changes: ClassVar[bool] = False


class Status(Request, frozen=True, tag="status"):
    """Answer: an object, how the core is."""


class Read(Request, frozen=True, tag="read"):
    """Measure now. Answer: a list of Measured. No channels: all that are measured."""

    channels: tuple[str, ...] = ()


class Tail(Request, frozen=True, tag="tail"):
    """Rows: readings as they come, as payload version 1 writes them. No channels: all."""

    channels: tuple[str, ...] = ()


class AlarmsList(Request, frozen=True, tag="alarms.list"):
    """Answer: a list of alarms, those that are not closed."""


class AlarmsShow(Request, frozen=True, tag="alarms.show"):
    """Answer: the alarm."""

    id: str


class AlarmsAck(Request, frozen=True, tag="alarms.ack"):
    """Answer: the alarm, as it is then; likewise for the three below."""

    changes: ClassVar[bool] = True
    id: str
    by: str
    role: str | None = None
    note: str | None = None


class AlarmsAssign(AlarmsAck, frozen=True, tag="alarms.assign"):
    """The note names to whom."""


class AlarmsHandle(AlarmsAck, frozen=True, tag="alarms.handle"):
    """The note says what was done."""


class AlarmsClose(AlarmsAck, frozen=True, tag="alarms.close"):
    pass


REQUESTS = (
    Status | Read | Tail | AlarmsList | AlarmsShow | AlarmsAck | AlarmsAssign | AlarmsHandle | AlarmsClose
)


class Measured(msgspec.Struct, frozen=True):
    """One point measured for `read`; `words`: its registers as they came."""

    channel: str
    device: str
    point: str
    words: tuple[int, ...]
    value: float | None
    unit: str
    quality: str
    round_trip_ms: float | None


class NotAnswered(Exception):
    """The core is not there, or it refused; `exit` is what the command line ends with."""

    def __init__(self, message: str, exit: int) -> None:  # noqa: A002 -- as on the wire
        super().__init__(message)
        self.exit = exit


class _Answer(msgspec.Struct):
    ok: msgspec.Raw = msgspec.Raw()
    row: msgspec.Raw = msgspec.Raw()
    error: str = ""
    exit: int = 1


def ask(path: Path, request: Request, type: Any = Any) -> Any:  # noqa: A002 -- as msgspec calls it
    """The core's answer to one request, as `type`.

    Raises:
        NotAnswered: no core listens at `path`, or it refused.
    """
    for answer in _answers(path, request, ANSWER_S):
        return msgspec.json.decode(answer.ok, type=type)
    raise _broken(path)


def stream(path: Path, request: Request, type: Any = Any) -> Iterator[Any]:  # noqa: A002
    """The rows of a stream, as they come.

    Raises:
        NotAnswered: no core listens at `path`, it refused, or it ended in between.
    """
    for answer in _answers(path, request, None):
        if not answer.row:
            return
        yield msgspec.json.decode(answer.row, type=type)
    raise _broken(path)


def _answers(path: Path, request: Request, deadline_s: float | None) -> Iterator[_Answer]:
    with socket.socket(socket.AF_UNIX) as core:
        core.settimeout(deadline_s)
        try:
            core.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # it hung up; why stands in what it sent
                core.sendall(msgspec.json.encode(request) + b"\n")
            with core.makefile("rb") as lines:
                for line in lines:
                    answer = msgspec.json.decode(line, type=_Answer)
                    if answer.error:
                        raise NotAnswered(answer.error, answer.exit)
                    yield answer
        except TimeoutError:
            raise NotAnswered(f"the core at {path} did not answer within {ANSWER_S:g} s", 3) from None
        except PermissionError:
            raise NotAnswered(f"{path}: this user may not speak to the core", 3) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotAnswered(f"no core listens at {path}; start it with pondwatch run", 3) from None
        except (OSError, msgspec.DecodeError):
            raise _broken(path) from None


def _broken(path: Path) -> NotAnswered:
    return NotAnswered(f"the core at {path} broke off", 3)
