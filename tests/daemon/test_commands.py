"""The command line, against a real control socket and a real store: what is printed, and the exit codes."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from daemon import requests
from daemon.alarms import Alarm, AlarmBook, NotAllowed, Observation, Subject
from daemon.clock import boot_id
from daemon.commands import VERBS, main
from daemon.commands.read import word_orders
from daemon.control import Caller, Control, Refused, Verb
from daemon.reading import Reading
from daemon.reasons import Reason
from daemon.requests import Measured
from daemon.store import Draft, Store

ROOT = Path(__file__).parents[2]
NOW = 1_795_400_000_000_000_000


class Core:
    """A control socket with an alarm book behind it, in a thread of its own."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.book = AlarmBook(timezone=ZoneInfo("Asia/Shanghai"))
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        verbs: dict[type[requests.Request], Verb] = {
            requests.AlarmsList: self.alarms,
            requests.AlarmsShow: self.show,
            requests.AlarmsAck: self.acknowledge,
            requests.AlarmsHandle: self.handle,
            requests.Read: self.read,
            requests.Tail: self.tail,
        }
        async with Control(self._run_dir / "control.sock", verbs):
            self._ready.set()
            await self._stop.wait()

    async def alarms(self, _: requests.AlarmsList, __: Caller) -> list[Alarm]:
        return self.book.open()

    async def show(self, request: requests.AlarmsShow, _: Caller) -> Alarm:
        return self.book.find(request.id)

    async def acknowledge(self, request: requests.AlarmsAck, _: Caller) -> Alarm:
        return self.book.respond(
            request.id, "acknowledge", by=request.by, role=request.role, note=None, time_ns=NOW
        )

    async def handle(self, request: requests.AlarmsHandle, _: Caller) -> Alarm:
        return self.book.respond(
            request.id, "handle", by=request.by, role=None, note=request.note, time_ns=NOW
        )

    async def read(self, request: requests.Read, _: Caller) -> list[Measured]:
        if request.channels == ("nowhere",):
            raise Refused("no channel is called nowhere", 2)
        good = Measured("w", "weather", "pressure", (0x447C, 0x0D71), 1008.21, "hPa", "good", 12.4)
        dead = Measured("p", "vw1", "freq03", (), None, "kPa", "bad:no-reply", None)
        return [good, dead] if not request.channels else [good]

    async def tail(self, _: requests.Tail, __: Caller) -> AsyncIterator[Reading]:
        yield Reading("n.pz03.elevation", "2026-11-23T08:00:00.000Z", 84.25, "m", "good", {})
        yield Reading("n.pz03.pressure", "2026-11-23T08:00:00.000Z", None, "kPa", "bad:no-reply", {})

    def __enter__(self) -> "Core":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
    with Core(tmp_path) as running:
        yield running


@pytest.fixture
def alarm(core: Core) -> Alarm:
    subject = Subject("channel", "n.pz03.elevation", pond="n", monitoring_point="PZ03")
    raised = core.book.observe(
        subject, Observation("yellow", "present", NOW, Reason("浸润线", "high"), 85.1, 85.0)
    )
    assert raised is not None
    return raised


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


# -- the front door ------------------------------------------------------------------------------------


def test_every_verb_has_its_module_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        code, out, _ = run(capsys, verb, "--help")
        assert code == 0
        assert f"usage: pondwatch {verb}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: VERB"),
        (["chek"], "invalid choice: 'chek'"),
        (["check", "--fast"], "unrecognized arguments: --fast"),
        (["alarms", "ack", "x"], "required: --by"),
        (["alarms", "handle", "x", "--by", "a"], "required: --note"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_what_the_surroundings_lack_is_exit_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PONDWATCH_RUN", str(tmp_path))
    code, _, err = run(capsys, "tail")
    assert code == 3
    assert err == f"pondwatch tail: no core listens at {tmp_path}/control.sock; start it with pondwatch run\n"
    code, _, err = run(capsys, "check", "--config", str(tmp_path / "no.toml"))
    assert code == 3
    missing = f"site file {tmp_path}/no.toml: No such file or directory; name yours with --config FILE"
    assert err == f"pondwatch check: {missing}\n"


def test_the_config_can_stand_before_and_after_the_verb_and_in_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = str(ROOT / "config/demo.toml")
    assert run(capsys, "--config", demo, "check")[0] == 0
    assert run(capsys, "check", "--config", demo)[0] == 0
    monkeypatch.setenv("PONDWATCH_CONFIG", demo)
    assert run(capsys, "check")[0] == 0


def test_a_stranger_under_our_name_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import drivers

    monkeypatch.setattr(drivers, "__path__", ["/somewhere/else/drivers"])
    code, _, err = run(capsys, "check")
    assert code == 3
    assert "an environment of its own" in err


def test_the_core_and_every_verb_beside_it_load_no_heavy_package() -> None:
    """`run` is the core; rules is the one verb that may load the compiler."""
    names = ", ".join(f"daemon.commands.{verb}" for verb in VERBS if verb != "rules")
    heavy = "{'numpy', 'numba', 'rich', 'sqlite_utils', 'edge_rules.advice'}"
    program = f"import sys, {names}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_who_reads_only_the_first_lines_hurts_nobody(tmp_path: Path) -> None:
    script = f"{sys.executable} -m daemon.commands check --config config/demo.toml | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


# -- check ---------------------------------------------------------------------------------------------


def test_check_says_what_is_there_and_how_busy_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "check", "--config", str(ROOT / "config/demo.toml"))
    assert (code, err) == (0, "")
    assert "site demo, gateway gw1" in out
    assert "warning: site.mode: every payload says that it is simulated" in out
    assert any(
        line.split()[:2] == ["rs485-1", "modbus-rtu"] and line.endswith("%") for line in out.splitlines()
    )


def test_check_lists_every_problem_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[site]\nid = "s"\n[[line]]\nid = "a b"\nkind = "tpc"\n')
    code, out, err = run(capsys, "check", "--config", str(path))
    assert (code, out) == (1, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "site.gateway",
        "line[0].id",
        "line[0].kind",
    ]
    code, out, _ = run(capsys, "--json", "check", "--config", str(path))
    assert code == 1
    assert [p["path"] for p in json.loads(out)["problems"]] == ["site.gateway", "line[0].id", "line[0].kind"]


def test_other_verbs_name_the_first_problem_and_point_to_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    path.write_text("[sit]\n")
    code, _, err = run(capsys, "spool", "--config", str(path))
    assert code == 1
    assert err == (
        f"pondwatch spool: {path}: sit: unknown key; did you mean 'site'? (and 1 more: pondwatch check lists them)\n"
    )


# -- over the control socket ---------------------------------------------------------------------------


def test_alarms_are_listed_acknowledged_and_handled(
    capsys: pytest.CaptureFixture[str], core: Core, alarm: Alarm
) -> None:
    code, out, _ = run(capsys, "alarms")
    assert code == 1  # one is open
    assert alarm.id in out
    assert "浸润线" in out
    code, out, _ = run(capsys, "alarms", "ack", alarm.id, "--by", "李伟", "--role", "督办人")
    assert code == 0
    assert core.book.find(alarm.id).by == "李伟"
    code, out, _ = run(
        capsys, "--json", "alarms", "handle", alarm.id, "--by", "李伟", "--note", "drain opened"
    )
    assert code == 0
    assert json.loads(out)["response"] == "handled"
    code, out, _ = run(capsys, "alarms", "show", alarm.id)
    assert "drain opened" in out
    code, out, _ = run(capsys, "--json", "alarms", "list")
    assert msgspec.json.decode(out, type=list[Alarm]) == core.book.open()


def test_no_alarm_is_well(capsys: pytest.CaptureFixture[str], core: Core) -> None:
    assert run(capsys, "alarms") == (0, "no alarm is open\n", "")


def test_a_refusal_is_the_books_own_sentence(
    capsys: pytest.CaptureFixture[str], core: Core, alarm: Alarm
) -> None:
    code, _, err = run(capsys, "alarms", "handle", alarm.id, "--by", "a", "--note", "b")
    assert code == 1
    assert err.startswith(f"pondwatch alarms: {alarm.id} is new: handle is not its turn")
    with pytest.raises(NotAllowed):
        core.book.find("x")


def test_read_shows_words_in_every_order_and_ends_with_1_if_one_is_bad(
    capsys: pytest.CaptureFixture[str], core: Core
) -> None:
    code, out, _ = run(capsys, "read")
    assert code == 1
    assert out.splitlines() == [
        "w  1008.21 hPa  good  weather.pressure  12 ms",
        "  words 447C 0D71",
        "  ABCD  float 1008.21  unsigned 1148980593",
        "  CDAB  float 7.434629e-31  unsigned 225526908",
        "  BADC  float 4.079933e+36  unsigned 2084860173",
        "  DCBA  float 7.006018e+29  unsigned 1896709188",
        "p  -  bad:no-reply  vw1.freq03",
    ]
    assert run(capsys, "read", "w")[0] == 0
    assert run(capsys, "read", "nowhere")[0] == 2


def test_word_orders_agree_with_numbers_known_beforehand() -> None:
    """-1.5 as IEEE 754 is BFC00000; 305419896 is 12345678 in hexadecimal."""
    assert word_orders((0x0000, 0xBFC0))["CDAB"].startswith("float -1.5 ")
    assert word_orders((0xC0BF, 0x0000))["BADC"].startswith("float -1.5 ")
    assert word_orders((0x0000, 0xC0BF))["DCBA"].startswith("float -1.5 ")
    assert "unsigned 305419896" in word_orders((0x1234, 0x5678))["ABCD"]
    assert word_orders((0xFFFF, 0xFFFF))["ABCD"] == "float no number  unsigned 4294967295  signed -1"


def test_tail_prints_readings_as_they_come(capsys: pytest.CaptureFixture[str], core: Core) -> None:
    code, out, _ = run(capsys, "tail")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["2026-11-23T08:00:00.000Z", "n.pz03.elevation", "84.25", "m", "good"],
        ["2026-11-23T08:00:00.000Z", "n.pz03.pressure", "-", "kPa", "bad:no-reply"],
    ]
    _, out, _ = run(capsys, "tail", "--json")
    assert [json.loads(line)["value"] for line in out.splitlines()] == [84.25, None]


# -- spool ---------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    text = (ROOT / "config/demo.toml").read_text()
    path = tmp_path / "site.toml"
    path.write_text(text.replace('path = "build/run/store"', f'path = "{tmp_path}/store"'))
    return path


@pytest.fixture
def store(tmp_path: Path, site: Path) -> Iterator[Store]:
    kept = Store.open(tmp_path / "store", "simulated", boot_id())
    for n in range(3):
        kept.commit([Draft("readings", b'"readings":[]', NOW + n, n, 7)])
    kept.commit([Draft("alarms", b'"id":"a"', NOW + 9, 9, 1)])
    kept.settle("company", [(1, 2)])
    yield kept
    kept.close()


def test_spool_status_counts_while_the_core_writes(
    capsys: pytest.CaptureFixture[str], site: Path, store: Store
) -> None:
    code, out, _ = run(capsys, "spool", "--config", str(site))
    assert code == 0
    assert out.splitlines()[0] == f"stream {store.stream}, mode simulated, 4 batches written"
    assert "uplink company: 2 batches not settled" in out
    _, out, _ = run(capsys, "--json", "spool", "status", "--config", str(site))
    assert json.loads(out)["kinds"][0] == {
        "kind": "readings",
        "batches": 3,
        "records": 21,
        "first_seq": 1,
        "last_seq": 3,
    }


def test_spool_verify_finds_the_batch_that_was_changed(
    capsys: pytest.CaptureFixture[str], site: Path, store: Store, tmp_path: Path
) -> None:
    assert run(capsys, "spool", "verify", "--config", str(site)) == (0, "4 batches, whole up to 4\n", "")
    import sqlite3

    with sqlite3.connect(tmp_path / "store/spool.db") as db:
        db.execute("UPDATE batch SET payload = CAST(replace(payload, '[]', '[1]') AS BLOB) WHERE seq = 2")
    db.close()
    code, out, _ = run(capsys, "spool", "verify", "--config", str(site))
    assert code == 1
    assert out.startswith("the chain is broken at batch 2")


def test_spool_without_a_store_says_so(capsys: pytest.CaptureFixture[str], site: Path) -> None:
    code, _, err = run(capsys, "spool", "--config", str(site))
    assert code == 3
    assert "there is no store at" in err


def test_spool_of_a_damaged_store_is_a_sentence(
    capsys: pytest.CaptureFixture[str], site: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/spool.db").write_bytes(b"no database at all, but long enough to be asked" * 40)
    code, _, err = run(capsys, "spool", "--config", str(site))
    assert code == 3
    assert "cannot be read" in err
