"""What may be asked over the control socket, and the client's side of asking."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_S = 120.0
MEASURED_S = 900.0  # a logger that measures when it is read takes minutes, and so may one before it


class Request(msgspec.Struct, tag_field="do", frozen=True, forbid_unknown_fields=True):
    """A line of the control socket; `do` is the verb, `changes`: it needs the right to change things."""

    changes: ClassVar[bool] = False


class Status(Request, frozen=True, tag="status"):
    """Answer: an object, how the core is."""


class Present(Request, frozen=True, tag="present"):
    """Answer: a daemon.present.Present, all that the status page shows of this moment."""


class Read(Request, frozen=True, tag="read"):
    """Measure now. Answer: a list of Measured. No channels: all that are measured."""

    channels: tuple[str, ...] = ()


class Tail(Request, frozen=True, tag="tail"):
    """Rows: readings as they come, as payload version 1 writes them. No channels: all."""

    channels: tuple[str, ...] = ()


class Trace(Request, frozen=True, tag="trace"):
    """Rows: what a recording of the line holds (drivers/recorder.py), its header first."""

    line: str


class Scan(Request, frozen=True, tag="scan"):
    """Look for units on a line that the core holds, reading only. Rows: Found, as they are found."""

    line: str
    units: tuple[int, ...]
    fn: Literal[3, 4] = 3
    at: int = 0
    timeout_s: float = 0.2


class Baseline(Request, frozen=True, tag="baseline"):
    """The baseline behind a channel, or of a GNSS receiver. Answer: daemon.baselines.Standing; below too."""

    channel: str
    last: int = 5


class BaselineTie(Request, frozen=True, tag="baseline.tie"):
    """Tie the base station now heard: the point stands `surveyed_mm` from its origin, east, north, up.

    `moved`: the survey found movement since the last certain displacement.
    """

    changes: ClassVar[bool] = True
    channel: str
    surveyed_mm: tuple[float, float, float]
    uncertainty_mm: float
    by: str
    witness: str
    reason: str
    last: int = 5
    moved: bool = False


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


class AlarmsAckAll(Request, frozen=True, tag="alarms.ack-all"):
    """Acknowledge all that is new, of one pond or of all. Answer: those alarms."""

    changes: ClassVar[bool] = True
    by: str
    pond: str | None = None
    role: str | None = None
    note: str | None = None


class Handover(Request, frozen=True, tag="alarms.handover"):
    """Answer: what one shift leaves to the next, a daemon.guard_verbs.LeftOver."""


class HandoverSign(Request, frozen=True, tag="alarms.handover.sign"):
    """The same, written down as handed over by one and taken over by the other."""

    changes: ClassVar[bool] = True
    by: str
    to: str
    note: str | None = None


class ModesList(Request, frozen=True, tag="modes"):
    """Answer: maintenance, drills and mutes under way."""


class Maintain(Request, frozen=True, tag="maintain"):
    """A device or line. `until`: a duration, `2 h`, or an instant, RFC 3339. Answer: the order; below too."""

    changes: ClassVar[bool] = True
    target: str
    by: str
    reason: str
    until: str


class MaintainEnd(Request, frozen=True, tag="maintain.end"):
    changes: ClassVar[bool] = True
    target: str
    by: str


class Rehearse(Request, frozen=True, tag="drill"):
    changes: ClassVar[bool] = True
    pond: str
    level: Literal["blue", "yellow", "orange", "red"]
    by: str
    reason: str
    until: str


class RehearseEnd(Request, frozen=True, tag="drill.end"):
    changes: ClassVar[bool] = True
    by: str


class MuteSound(Request, frozen=True, tag="mute"):
    changes: ClassVar[bool] = True
    pond: str
    by: str
    reason: str
    until: str


class MuteEnd(Request, frozen=True, tag="mute.end"):
    changes: ClassVar[bool] = True
    pond: str
    by: str


class ManualReading(Request, frozen=True, tag="manual.reading"):
    """A reading by hand in the channel's unit; `at` RFC 3339, absent: now. Answer: daemon.manual.Compared."""

    changes: ClassVar[bool] = True
    channel: str
    value: float
    by: str
    at: str | None = None
    note: str | None = None


class ManualPatrol(Request, frozen=True, tag="manual.patrol"):
    """What a patrol found. Answer: the ids of alarms it raised."""

    changes: ClassVar[bool] = True
    pond: str
    by: str
    found: str
    section: str = ""
    abnormal: bool = False
    at: str | None = None


class StormWarning(Request, frozen=True, tag="rain.warning"):
    """A warning of the weather service for a pond, or of an earthquake; `until` as above; none takes it back.

    Answer: alarms.
    """

    changes: ClassVar[bool] = True
    pond: str
    level: Literal["none", "blue", "yellow", "orange", "red"]
    until: str
    source: str
    by: str
    text: str | None = None
    ref: str | None = None
    of: Literal["storm", "earthquake"] = "storm"


class AlarmsLabel(Request, frozen=True, tag="alarms.label"):
    """What an engineer makes of an alarm, open or closed; the last label counts. Answer: the alarm."""

    changes: ClassVar[bool] = True
    id: str
    label: Literal["real", "false", "unsure"]
    by: str
    note: str | None = None


class SpoolResend(Request, frozen=True, tag="spool.resend"):
    """Send a range of the stream once more, over one uplink or all. Answer: Resending."""

    changes: ClassVar[bool] = True
    from_seq: int
    to_seq: int
    by: str
    uplink: str | None = None
    note: str | None = None


class Apply(Request, frozen=True, tag="apply"):
    """Take the site file that is in its place now; `sha256`: of the one that is meant. Answer: Applied."""

    changes: ClassVar[bool] = True
    sha256: str
    by: str
    note: str | None = None


REQUESTS = (
    Status
    | Present
    | Read
    | Tail
    | Trace
    | Scan
    | Baseline
    | BaselineTie
    | AlarmsList
    | AlarmsShow
    | AlarmsAck
    | AlarmsAssign
    | AlarmsHandle
    | AlarmsClose
    | AlarmsAckAll
    | Handover
    | HandoverSign
    | ModesList
    | Maintain
    | MaintainEnd
    | Rehearse
    | RehearseEnd
    | MuteSound
    | MuteEnd
    | ManualReading
    | ManualPatrol
    | StormWarning
    | AlarmsLabel
    | SpoolResend
    | Apply
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


class Resending(msgspec.Struct, frozen=True):
    """What will be sent once more, and over which uplinks."""

    stream: str
    from_seq: int
    to_seq: int
    uplinks: tuple[str, ...]


class Applied(msgspec.Struct, frozen=True):
    """Which site file was in use; `restarts`: the core begins again at once with the new one."""

    was: str
    restarts: bool


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


def ask(path: Path, request: Request, type: Any = Any, deadline_s: float = ANSWER_S) -> Any:  # noqa: A002 -- as msgspec calls it
    """The core's answer to one request, as `type`.

    Raises:
        NotAnswered: no core listens at `path`, or it refused.
    """
    for answer in _answers(path, request, deadline_s):
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
            raise NotAnswered(f"the core at {path} did not answer within {deadline_s:g} s", 3) from None
        except PermissionError:
            raise NotAnswered(f"{path}: this user may not speak to the core", 3) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotAnswered(f"no core listens at {path}; start it with pondwatch run", 3) from None
        except (OSError, msgspec.DecodeError):
            raise _broken(path) from None


def _broken(path: Path) -> NotAnswered:
    return NotAnswered(f"the core at {path} broke off", 3)
