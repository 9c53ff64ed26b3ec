"""The control socket over real Unix sockets: right answers, right people, and nobody who can hold it up."""

import asyncio
import json
import logging
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemon import control, requests
from daemon.alarms import NotAllowed
from daemon.control import Caller, Control, Fanout, Refused, SocketTaken, TooSlow
from daemon.requests import NotAnswered

Verbs = Mapping[type[requests.Request], control.Verb]


async def status(_: requests.Status, caller: Caller) -> object:
    return {"uid": caller.uid, "pid": caller.pid, "nothing": float("nan")}


async def acknowledge(request: requests.AlarmsAck, _: Caller) -> object:
    return {"id": request.id, "by": request.by}


async def show(request: requests.AlarmsShow, _: Caller) -> object:
    raise NotAllowed(f"no open alarm is called {request.id}")


async def read(request: requests.Read, _: Caller) -> object:
    raise Refused(f"no channel is called {request.channels[0]}", 2)


async def broken(_: requests.AlarmsList, __: Caller) -> object:
    raise ZeroDivisionError


async def count(_: requests.Tail, __: Caller) -> AsyncIterator[object]:
    for n in range(3):
        yield {"n": n}


VERBS: Verbs = {
    requests.Status: status,
    requests.AlarmsAck: acknowledge,
    requests.AlarmsShow: show,
    requests.AlarmsList: broken,
    requests.Read: read,
    requests.Tail: count,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def say(path: Path, line: bytes) -> Any:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    return json.loads(answer)


async def test_a_request_is_answered_and_the_caller_is_known_by_the_kernel(path: Path) -> None:
    async with Control(path, VERBS):
        answer = await asyncio.to_thread(requests.ask, path, requests.Status())
        assert answer == {"uid": os.getuid(), "pid": os.getpid(), "nothing": None}
        assert await say(path, b'{"do":"status"}\n') == {"ok": answer}
    assert not path.exists()


async def test_one_connection_may_ask_many_times(path: Path) -> None:
    async with Control(path, VERBS):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"do":"status"}\nnonsense\n{"do":"alarms.ack","id":"a","by":"b"}\n')
        answers = [json.loads(await reader.readline()) for _ in range(3)]
        assert [sorted(a) for a in answers] == [["ok"], ["error", "exit"], ["ok"]]
        writer.close()


async def test_a_stream_comes_row_by_row_and_says_its_end(path: Path) -> None:
    async with Control(path, VERBS):
        rows = await asyncio.to_thread(list, requests.stream(path, requests.Tail()))
        assert rows == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"\n", "no request"),
        (b"{}\n", "no request"),
        (b'{"do":"format"}\n', "Invalid value 'format'"),
        (b'{"do":"status","more":1}\n', "unknown field `more`"),
        (b'{"do":"alarms.show"}\n', "missing required field `id`"),
        (b'{"do":"alarms.show","id":7}\n', "Expected `str`, got `int`"),
        (b'{"do":"alarms.close","id":"a","by":"b"}\n', "alarms.close is not offered here"),
        (b"[" * 60_000 + b"\n", "no request"),
        (b"\xff\xfe\n", "no request"),
        (b"x" * 70_000 + b"\n", "at most 65536 bytes"),
    ],
)
async def test_bad_input_gets_one_clear_error(path: Path, line: bytes, sentence: str) -> None:
    async with Control(path, VERBS):
        answer = await say(path, line)
        assert sentence in answer["error"]
        assert answer["exit"] == 2
        assert "ok" in await say(path, b'{"do":"status"}\n')


async def test_what_a_verb_refuses_reaches_the_command_line_with_its_exit_code(path: Path) -> None:
    async with Control(path, VERBS):
        with pytest.raises(NotAnswered, match="no open alarm is called x") as refused:
            await asyncio.to_thread(requests.ask, path, requests.AlarmsShow("x"))
        assert refused.value.exit == 1
        with pytest.raises(NotAnswered, match="no channel is called pz99") as refused:
            await asyncio.to_thread(requests.ask, path, requests.Read(("pz99",)))
        assert refused.value.exit == 2


async def test_a_verb_that_breaks_costs_its_caller_the_connection_and_nobody_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Control(path, VERBS):
        with caplog.at_level(logging.ERROR), pytest.raises(NotAnswered, match="broke off"):
            await asyncio.to_thread(requests.ask, path, requests.AlarmsList())
        assert "ZeroDivisionError" in caplog.text
        assert "ok" in await say(path, b'{"do":"status"}\n')


async def test_the_seventeenth_client_is_told_so(path: Path) -> None:
    async with Control(path, VERBS):
        clients = [await asyncio.open_unix_connection(path) for _ in range(control.MAX_CLIENTS)]
        for reader, writer in clients:  # served, so surely counted
            writer.write(b'{"do":"status"}\n')
            await reader.readline()
        with pytest.raises(NotAnswered, match="16 clients are connected already"):
            await asyncio.to_thread(requests.ask, path, requests.Status())
        clients[0][1].close()
        async with asyncio.timeout(5):
            while "error" in await say(path, b'{"do":"status"}\n'):
                await asyncio.sleep(0.01)
        for _, writer in clients:
            writer.close()


async def test_who_asks_nothing_is_dropped(path: Path) -> None:
    async with Control(path, VERBS, idle_s=0.05):
        reader, writer = await asyncio.open_unix_connection(path)
        assert "nothing was asked" in json.loads(await reader.readline())["error"]
        assert await reader.read() == b""
        writer.close()


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Control(path, VERBS):
        with pytest.raises(SocketTaken, match=r"control\.sock"):
            await Control(path, VERBS).__aenter__()
        assert "ok" in await say(path, b'{"do":"status"}\n')


async def test_the_socket_has_its_mode_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o000)
    try:
        async with Control(path, VERBS):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)


async def test_without_a_core_the_client_says_how_to_start_one(path: Path) -> None:
    with pytest.raises(NotAnswered, match="pondwatch run") as refused:
        requests.ask(path, requests.Status())
    assert refused.value.exit == 3


async def watched(path: Path, fanout: Fanout[bytes]) -> Control:
    async def tail(_: requests.Tail, __: Caller) -> AsyncIterator[object]:
        async for item in fanout.watch():
            yield item.decode()

    return Control(path, {requests.Tail: tail, requests.Status: status})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_slow_client_is_dropped_and_the_source_never_waits(path: Path) -> None:
    fanout: Fanout[bytes] = Fanout(size=10)
    async with await watched(path, fanout):
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
        writer.write(b'{"do":"tail"}\n')
        await until(lambda: len(fanout) == 1)
        sent = 0
        while len(fanout):  # the client reads nothing; pipe, buffers and queue fill
            fanout.publish(b"x" * 50_000)
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000
        lines = [json.loads(line) async for line in reader]
        assert "dropped" in lines[-1]["error"]
        assert all(len(line["row"]) == 50_000 for line in lines[:-1])
        assert "ok" in await say(path, b'{"do":"status"}\n')
        writer.close()


async def test_a_watcher_who_leaves_is_forgotten(path: Path) -> None:
    fanout: Fanout[bytes] = Fanout()
    async with await watched(path, fanout):
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"do":"tail"}\n')
        await until(lambda: len(fanout) == 1)
        writer.close()
        await until(lambda: len(fanout) == 0)


async def test_the_core_stops_without_waiting_for_watchers(path: Path) -> None:
    fanout: Fanout[bytes] = Fanout()
    async with asyncio.timeout(5):
        async with await watched(path, fanout):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"do":"tail"}\n')
            await until(lambda: len(fanout) == 1)
        assert await reader.read() == b""
        writer.close()
    assert len(fanout) == 0


async def test_a_watcher_sees_all_in_order_from_when_it_came() -> None:
    fanout: Fanout[int] = Fanout(size=2)
    fanout.publish(0)
    watching = fanout.watch()
    first = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    for n in (1, 2, 3):
        fanout.publish(n)
    with pytest.raises(TooSlow):
        assert [await first, await anext(watching), await anext(watching)]
    assert len(fanout) == 0


def test_only_root_and_the_cores_own_user_may_change_things() -> None:
    assert Caller(1, 0, 0).may_change
    assert Caller(1, os.getuid(), 0).may_change
    assert not Caller(1, os.getuid() + 4711, 0).may_change


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that another user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "control.sock"


ASK_AS_NOBODY = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b'{"do":"status"}\\n{"do":"alarms.ack","id":"a","by":"b"}\\n')
f = s.makefile(); print(f.readline() + f.readline())
"""


SYSTEM_PYTHON = Path("/usr/bin/python3")  # another user need not be able to reach the one we run on


@pytest.mark.skipif(os.getuid() != 0, reason="only root can call as somebody else")
@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason=f"there is no {SYSTEM_PYTHON}")
async def test_another_user_may_read_and_not_change(public: Path) -> None:
    async with Control(public, VERBS, mode=0o666):
        child = await asyncio.create_subprocess_exec(
            SYSTEM_PYTHON, "-c", ASK_AS_NOBODY, public, user=65534, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        may, may_not = (json.loads(line) for line in said.splitlines() if line)
        assert may["ok"]["uid"] == 65534
        assert "only root" in may_not["error"]
        assert may_not["exit"] == 3


def test_every_request_says_in_its_type_whether_it_changes_anything() -> None:
    reading = {r.__struct_config__.tag for r in requests.Request.__subclasses__() if not r.changes}
    assert reading == {
        *("status", "read", "tail", "trace", "scan", "modes", "present", "baseline"),
        *("alarms.list", "alarms.show", "alarms.handover"),
    }
    assert all(r.changes for r in requests.AlarmsAck.__subclasses__())


_: Callable[[requests.Status, Caller], Awaitable[object]] = status  # a verb is any such function
