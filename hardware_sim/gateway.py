"""The gateway under the daemon: a disk that takes nothing, a wall clock that steps.

The daemon is whoever listens on its control socket (unix(7), SO_PEERCRED); it has to be of the same user. Its
disk is made to refuse every write by a file size limit of 0 (prlimit(2)): what it has written stays readable.
Its wall clock is stepped through eight bytes, seconds as a double, in a file of which a daemon on a simulated
site was told by `PONDWATCH_BENCH_STEP`.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_sim.faults import FaultUnknown

if TYPE_CHECKING:
    from hardware_sim.faults import Fault

_PEER = struct.Struct("3i")  # pid, uid, gid
_SECONDS = struct.Struct("=d")


class Gateway:
    """Breaks the surroundings of the daemon at `control`; `step_file` is made by `open`."""

    def __init__(self, control: Path, step_file: Path) -> None:
        self._control = control
        self.step_file = step_file
        self._held: tuple[int, tuple[int, int]] | None = None  # process and its limits before

    def open(self) -> None:
        self.step_file.write_bytes(_SECONDS.pack(0.0))

    def close(self) -> None:
        self._let_write()
        self.step_file.unlink(missing_ok=True)

    def suffer(self, fault: Fault | None) -> None:
        """`disk_full` or `clock_step N`; anything else mends both.

        Raises:
            FaultUnknown: no daemon listens, or it belongs to somebody else.
        """
        kind = fault.kind if fault is not None else ""
        self._let_write()
        if kind == "disk_full":
            self._refuse_writes()
        step_s = fault.number if fault is not None and kind == "clock_step" else 0.0
        with self.step_file.open("r+b") as file:  # in place: the daemon has it mapped
            file.write(_SECONDS.pack(step_s))

    def _refuse_writes(self) -> None:
        pid = self._daemon()
        try:
            before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        except PermissionError:
            raise FaultUnknown(f"the daemon (process {pid}) belongs to another user") from None
        self._held = (pid, before)

    def _let_write(self) -> None:
        held, self._held = self._held, None
        if held is not None and Path(f"/proc/{held[0]}").exists():
            with contextlib.suppress(
                ProcessLookupError, PermissionError
            ):  # gone, or its number is another's now
                resource.prlimit(held[0], resource.RLIMIT_FSIZE, held[1])

    def _daemon(self) -> int:
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(self._control))
            except OSError:
                raise FaultUnknown(f"no daemon listens at {self._control}") from None
            peer = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(peer)[0])
