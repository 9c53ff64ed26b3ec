"""OpenSSH's sftp-server, stuck on demand: run by sshd instead of it, with its path and a file that says where.

    start   it never says its version          rename   the rename is asked for and never reaches the server
    renamed the server has done it, and its answer never leaves

In the file stands one of these, or nothing. SSH itself goes on: only the subsystem is stuck, as behind a disk that
hangs.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

EXTENDED, RENAME = 200, b"posix-rename@openssh.com"


def packet(source: IO[bytes]) -> bytes:
    """The next one, or nothing at the end."""
    head = source.read(4)
    return head + source.read(struct.unpack(">I", head)[0]) if len(head) == 4 else b""


def main(server: str, told: Path) -> None:
    child = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    stuck = threading.Event()
    replies = child.stdout

    def answers() -> None:
        while its := packet(replies):
            if not stuck.is_set():
                sys.stdout.buffer.write(its)
                sys.stdout.buffer.flush()

    if told.read_text() == "start":
        sys.stdin.buffer.read()  # until sshd ends the session
    threading.Thread(target=answers, daemon=True).start()
    while asked := packet(sys.stdin.buffer):
        where = told.read_text()
        if asked[4] == EXTENDED and RENAME in asked[:40] and where in ("rename", "renamed"):
            stuck.set()
            if where == "rename":
                continue
        child.stdin.write(asked)
        child.stdin.flush()
    child.kill()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
