"""What an uplink sends next, on an imaginary link and clock."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.ranges import Ranges
from daemon.spool import KINDS, Batch, Kind
from daemon.uplink import contract
from daemon.uplink.contract import SendQueue


class Shelf:
    """The store, as far as the queue can tell."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def add(self, kind: Kind, size: int = 100) -> int:
        seq = len(self.batches) + 1
        self.batches.append(Batch(seq, kind, 0, 1, b"x" * size, b""))
        return seq

    @property
    def latest(self) -> dict[Kind, int]:
        return {k: max((b.seq for b in self.batches if b.kind == k), default=0) for k in KINDS}

    def peek(self, ask: contract.Ask) -> list[Batch]:
        found: list[Batch] = []
        size = 0
        for batch in self.batches[ask.after : ask.upto]:
            if batch.kind in ask.lane.kinds and len(found) < ask.limit and size < ask.max_bytes:
                found.append(batch)
                size += len(batch.payload)
        return found


def make(settled: Ranges | None = None, *, by_receipt: bool = False, window: int = 20) -> SendQueue:
    return SendQueue(
        settled or Ranges(),
        by_receipt=by_receipt,
        window=window,
        ack_deadline_s=30.0,
        receipt_deadline_s=120.0,
        random=random.Random(1),
    )


def fill(queue: SendQueue, shelf: Shelf, now_s: float = 0.0) -> list[int]:
    """Send all there is room for; the seqs in their order."""
    queue.committed(shelf.latest)
    sent = []
    while (ask := queue.ask()) is not None:
        sent += [batch.seq for batch in queue.found(ask, shelf.peek(ask), now_s)]
    return sent


def drain(queue: SendQueue, shelf: Shelf, now_s: float = 0.0) -> list[int]:
    """Send and acknowledge until nothing is left."""
    order: list[int] = []
    while sent := fill(queue, shelf, now_s):
        order += sent
        for seq in sent:
            queue.acked(seq, now_s)
    return order


def next_sent(queue: SendQueue, shelf: Shelf) -> tuple[float, list[int]]:
    """Let time pass until something is sent by itself; when, and what."""
    while True:
        now_s = queue.next_deadline_s
        assert now_s < inf
        assert not queue.tick(now_s)
        if sent := fill(queue, shelf, now_s):
            return now_s, sent


def test_alarms_gaps_and_audit_leave_before_live_readings_and_these_before_the_backlog() -> None:
    shelf, queue = Shelf(), make(window=100)
    for _ in range(5):
        shelf.add("readings")
    shelf.add("audit")
    shelf.add("alarms")
    queue.begin(shelf.latest, 1, 100)
    shelf.add("readings")
    shelf.add("gaps")
    shelf.add("alarms")
    assert drain(queue, shelf) == [7, 10, 9, 6, 8, 1, 2, 3, 4, 5]
    assert queue.settled.to_list() == [[1, 10]]


def test_readings_of_before_the_connection_are_backfill_and_later_ones_are_not() -> None:
    shelf, queue = Shelf(), make()
    shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    shelf.add("readings")
    queue.committed(shelf.latest)
    live = queue.ask()
    assert live is not None
    assert not live.lane.backfill
    assert [b.seq for b in queue.found(live, shelf.peek(live), 0.0)] == [2]
    old = queue.ask()
    assert old is not None
    assert old.lane.backfill


def test_what_is_settled_is_passed_over_without_looking_at_it() -> None:
    shelf, queue = Shelf(), make(Ranges([(1, 40), (45, 90)]))
    for _ in range(100):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    queue.committed(shelf.latest)
    ask = queue.ask()
    assert ask is not None
    assert (ask.after, ask.upto) == (40, 44)
    assert drain(queue, shelf) == [41, 42, 43, 44, *range(91, 101)]


def test_the_smaller_window_counts_and_readings_leave_room_for_an_alarm() -> None:
    shelf, queue = Shelf(), make(window=20)
    for _ in range(50):
        shelf.add("readings", 10)
    queue.begin(shelf.latest, 1, 8)
    assert len(fill(queue, shelf)) == 6
    shelf.add("alarms")
    shelf.add("alarms")
    shelf.add("alarms")
    assert fill(queue, shelf) == [51, 52]
    queue.acked(1, 0.1)
    assert fill(queue, shelf) == [53]


def test_a_window_of_one_still_moves_everything() -> None:
    shelf, queue = Shelf(), make(window=1)
    for n in range(9):
        shelf.add("alarms" if n % 3 == 0 else "readings")
    queue.begin(shelf.latest, 1, 1)
    assert sorted(drain(queue, shelf)) == list(range(1, 10))


def test_bytes_in_flight_are_bounded_whatever_the_batches_weigh() -> None:
    shelf, queue = Shelf(), make(window=1000)
    for _ in range(200):
        shelf.add("readings", 100_000)
    queue.begin(shelf.latest, 1, 1000)
    now_s, most = 0.0, 0
    flying: list[int] = []
    while queue.settled.count(1, 200) < 200:
        flying += fill(queue, shelf, now_s)
        most = max(most, len(flying))
        now_s += 0.01
        queue.acked(flying.pop(0), now_s)
    assert 10 <= most <= contract.WINDOW_BYTES // 100_000 + 2
    assert fill(queue, shelf) == []


def test_on_a_slow_link_an_alarm_waits_behind_about_a_second_of_backlog() -> None:
    """64 kbit/s and half a second of delay: first in first out, nothing but the queue decides what is on it."""
    shelf, queue = Shelf(), make(window=20)
    for _ in range(300):
        shelf.add("readings", 4000)
    queue.begin(shelf.latest, 1, 20)
    link: list[tuple[int, int]] = []
    free_s = now_s = raised_s = 0.0
    alarm, arrived_s = 0, 0.0
    while not arrived_s:
        if now_s > 120 and not alarm:
            alarm, raised_s = shelf.add("alarms", 600), now_s
        link += [(seq, len(shelf.batches[seq - 1].payload)) for seq in fill(queue, shelf, now_s)]
        seq, size = link.pop(0)
        free_s = now_s = max(free_s, now_s) + size / 8000
        queue.acked(seq, now_s + 0.5)
        arrived_s = now_s if seq == alarm else 0.0
    assert arrived_s - raised_s < 3  # with the whole window full of readings it would be 9


def test_a_batch_larger_than_any_budget_goes_alone() -> None:
    shelf, queue = Shelf(), make()
    for _ in range(3):
        shelf.add("readings", contract.WINDOW_BYTES + 1)
    queue.begin(shelf.latest, 1, 20)
    assert fill(queue, shelf) == [1]
    queue.acked(1, 0.0)
    assert fill(queue, shelf) == [2]


def test_a_refused_batch_is_not_delivered_waits_longer_each_time_and_blocks_nobody() -> None:
    shelf, queue = Shelf(), make()
    for _ in range(3):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    assert fill(queue, shelf) == [1, 2, 3]
    queue.acked(1, 0.0)
    queue.acked(3, 0.0)
    now_s, pauses = 0.0, []
    for _ in range(12):
        pauses.append(queue.refused(2, now_s))
        assert 2 not in queue.settled
        shelf.add("readings")
        assert drain(queue, shelf, now_s) == [len(shelf.batches)]  # what comes after it goes on
        assert not queue.tick(now_s + pauses[-1] - 0.01)
        assert fill(queue, shelf) == []
        now_s, sent = next_sent(queue, shelf)
        assert sent == [2]
    assert all(
        longest / 2 <= pause <= longest
        for pause, longest in zip(pauses, [2, 4, 8, 16, 32, *[60] * 7], strict=True)
    )
    queue.acked(2, now_s)
    assert queue.settled.to_list() == [[1, 15]]
    assert queue.counters.rejected == 12


def test_a_topic_that_refuses_everything_stays_bounded_and_alarms_still_leave() -> None:
    shelf, queue = Shelf(), make()
    for _ in range(2000):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    refused = 0
    while sent := fill(queue, shelf):
        for seq in sent:
            queue.refused(seq, 0.0)
            refused += 1
    assert refused < contract.MOST_REFUSED + 20
    assert len(queue._sent) < contract.MOST_REFUSED + 20
    shelf.add("alarms")
    assert fill(queue, shelf) == [2001]


def test_without_a_receipt_a_batch_is_sent_again_less_and_less_often() -> None:
    shelf, queue = Shelf(), make(by_receipt=True)
    shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    now_s, waits = 0.0, []
    assert fill(queue, shelf, now_s) == [1]
    for _ in range(7):
        assert not queue.acked(1, now_s)
        acked_s = now_s
        now_s, sent = next_sent(queue, shelf)
        assert sent == [1]
        waits.append(now_s - acked_s)
    assert waits == [120, 240, 480, 960, 1920, 1920, 1920]
    assert queue.receipt(Ranges([(1, 1)])) == ([1], False)
    assert not queue.acked(1, now_s)  # its acknowledgement only frees the window
    assert queue._flying == 0
    assert queue._sent == {}
    assert not queue.tick(1e9)
    assert queue.next_deadline_s == inf


def test_a_receipt_settles_only_what_was_sent_and_says_so() -> None:
    shelf, queue = Shelf(), make(Ranges([(1, 2)]), by_receipt=True)
    for _ in range(5):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    fill(queue, shelf)
    shelf.add("readings")
    assert queue.receipt(Ranges([(1, 4)])) == ([3, 4], False)
    assert queue.receipt(Ranges([(1, 10**12)])) == ([], True)  # nonsense settles nothing
    queue.committed(shelf.latest)
    assert queue.receipt(Ranges([(1, 6)])) == ([5], True)  # 6 was never sent
    assert queue.settled.to_list() == [[1, 5]]
    assert fill(queue, shelf) == [6]


def test_many_receipts_outstanding_stop_readings_and_not_alarms() -> None:
    shelf, queue = Shelf(), make(by_receipt=True, window=500)
    for _ in range(2 * contract.MOST_WAITING):
        shelf.add("readings", 1)
    queue.begin(shelf.latest, 1, 500)
    sent = drain(queue, shelf)
    assert contract.MOST_WAITING <= len(sent) <= contract.MOST_WAITING + 500
    alarm = shelf.add("alarms")
    assert drain(queue, shelf) == [alarm]
    queue.receipt(Ranges([(1, 1000)]))
    assert len(drain(queue, shelf)) >= 1000 - 500


def test_an_acknowledgement_overdue_means_the_connection_is_dead() -> None:
    shelf, queue = Shelf(), make()
    shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    fill(queue, shelf, now_s=5.0)
    assert not queue.tick(34.9)
    assert queue.tick(35.0)
    queue.begin(shelf.latest, 1, 20)
    assert fill(queue, shelf, 36.0) == [1]
    assert not queue.tick(60.0)
    assert queue.counters.resent == 1


@pytest.mark.parametrize("by_receipt", [False, True])
def test_what_flew_when_the_connection_was_lost_is_sent_again_and_what_was_acknowledged_is_not(
    by_receipt: bool,
) -> None:
    shelf, queue = Shelf(), make(by_receipt=by_receipt)
    for _ in range(4):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    fill(queue, shelf)
    queue.acked(1, 0.0)
    queue.acked(4, 0.0)
    queue.receipt(Ranges([(2, 2)]) if by_receipt else Ranges())
    queue.begin(shelf.latest, 1, 20)
    assert fill(queue, shelf) == ([3] if by_receipt else [2, 3])
    assert not queue.acked(99, 0.0)  # an acknowledgement nobody waits for changes nothing


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_link_does_everything_is_settled_once_it_behaves(  # noqa: C901 -- one arm per event
    data: st.DataObject,
) -> None:
    """Random commits, acks, refusals, receipts, losses and restarts; then a good link. Nothing may be left behind."""
    by_receipt = data.draw(st.booleans())
    shelf, queue = Shelf(), make(by_receipt=by_receipt, window=data.draw(st.integers(1, 6)))
    now_s = 0.0
    flying: list[int] = []
    truly_settled: set[int] = set()
    queue.begin(shelf.latest, 1, 20)
    for step in data.draw(
        st.lists(
            st.sampled_from(
                ["add", "add", "send", "ack", "ack", "refuse", "receipt", "lose", "wait", "restart"]
            ),
            max_size=60,
        )
    ):
        match step:
            case "add":
                shelf.add(data.draw(st.sampled_from(KINDS)))
            case "send":
                flying += fill(queue, shelf, now_s)
                assert len(flying) == len(set(flying)) <= queue._window
            case "ack" if flying:
                seq = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
                if queue.acked(seq, now_s):
                    truly_settled.add(seq)
            case "refuse" if flying:
                queue.refused(flying.pop(), now_s)
            case "receipt" if by_receipt and shelf.batches:
                newly, _ = queue.receipt(
                    Ranges([(data.draw(st.integers(1, len(shelf.batches))), len(shelf.batches))])
                )
                truly_settled |= set(newly)
            case "lose":
                flying = []
                queue.begin(shelf.latest, 1, data.draw(st.integers(1, 9)))
            case "wait":
                now_s += 10.0
                queue.tick(now_s)
            case "restart":
                flying = []
                queue = make(queue.settled, by_receipt=by_receipt)
                queue.begin(shelf.latest, 1, 20)
        assert {n for a, b in queue.settled for n in range(a, b + 1)} == truly_settled
        assert queue._flying == len(flying)
    queue.begin(shelf.latest, 1, 20)
    for _ in range(40):
        drain(queue, shelf, now_s)
        if by_receipt:
            queue.receipt(Ranges([(1, len(shelf.batches))]) if shelf.batches else Ranges())
        now_s += 400.0
        queue.tick(now_s)
    assert queue.settled.to_list() == ([[1, len(shelf.batches)]] if shelf.batches else [])
    assert queue._sent == {}
    assert all(lane.waiting == lane.refused == 0 for lane in queue._lanes)


def test_what_is_refused_for_good_is_tried_a_few_times_and_then_not_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf, queue = Shelf(), make()
    for _ in range(3):
        shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    now_s, pause_s = 0.0, 0.0
    assert fill(queue, shelf) == [1, 2, 3]
    queue.acked(1, now_s)
    queue.acked(3, now_s)
    for attempt in range(contract.POISON_REFUSALS):
        pause_s = queue.refused(2, now_s, for_good=True)
        assert (pause_s == inf) == (attempt == contract.POISON_REFUSALS - 1)
        if pause_s < inf:
            now_s, sent = next_sent(queue, shelf)
            assert sent == [2]
    assert queue.next_deadline_s == inf or not queue.tick(now_s + 1e6)
    assert fill(queue, shelf, now_s + 1e6) == []
    assert queue.quarantined.to_list() == [[2, 2]]
    assert queue.counters.quarantined == 1
    assert queue.settled.to_list() == [[1, 1], [3, 3]]  # it stays in the store
    assert all(lane.refused == 0 for lane in queue._lanes)
    queue.begin(shelf.latest, 1, 20)
    assert fill(queue, shelf, now_s) == []


def test_a_passing_refusal_is_never_quarantine_and_a_quarantined_batch_can_be_asked_for() -> None:
    shelf, queue = Shelf(), make(by_receipt=True)
    shelf.add("readings")
    queue.begin(shelf.latest, 1, 20)
    fill(queue, shelf)
    now_s = 0.0
    for _ in range(3 * contract.POISON_REFUSALS):
        assert queue.refused(1, now_s) < inf
        now_s, _ = next_sent(queue, shelf)
    for _ in range(contract.POISON_REFUSALS):
        queue.refused(1, now_s, for_good=True)
        if 1 in queue._sent:
            now_s, _ = next_sent(queue, shelf)
    assert queue.quarantined.to_list() == [[1, 1]]
    assert queue.resend(1, 1)
    assert fill(queue, shelf, now_s) == [1]
    assert queue.is_repeat(1)
    queue.acked(1, now_s)
    assert queue.receipt(Ranges([(1, 1)])) == ([1], False)


def test_more_poison_than_quarantine_holds_stops_its_lane_and_no_other() -> None:
    shelf, queue = Shelf(), make(window=500)
    total = contract.MOST_QUARANTINED + 2 * contract.MOST_REFUSED
    for _ in range(total):
        shelf.add("readings", 1)
    queue.begin(shelf.latest, 1, 500)
    now_s = 0.0
    for _ in range(200):
        for seq in fill(queue, shelf, now_s):
            queue.refused(seq, now_s, for_good=True)
        now_s += 61.0
        queue.tick(now_s)
    assert queue.counters.quarantined == contract.MOST_QUARANTINED
    assert len(queue._sent) <= contract.MOST_REFUSED + 500
    alarm = shelf.add("alarms")
    assert alarm in fill(queue, shelf, now_s)


def test_the_backlog_takes_no_more_of_the_link_than_its_rate_and_live_readings_are_free_of_it() -> None:
    shelf = Shelf()
    queue = SendQueue(
        Ranges(), by_receipt=False, window=20, ack_deadline_s=30.0, receipt_deadline_s=120.0,
        drain_bytes_per_s=1000.0,
    )  # fmt: skip
    for _ in range(100):
        shelf.add("readings", 500)
    queue.begin(shelf.latest, 1, 20)
    now_s, sent = 0.0, 0
    while now_s < 20.0:
        for seq in fill(queue, shelf, now_s):
            sent += seq <= 100
            queue.acked(seq, now_s)
        if queue.next_deadline_s > now_s:
            now_s = min(queue.next_deadline_s, now_s + 5.0)
        queue.tick(now_s)
    assert 38 <= sent <= 42  # 20 s at 1000 bytes/s of 500 bytes each
    live = shelf.add("readings", 500)
    alarm = shelf.add("alarms")
    assert set(fill(queue, shelf, now_s)) >= {live, alarm}


def test_a_range_is_sent_again_marked_and_behind_all_else_and_disturbs_nothing() -> None:
    shelf, queue = Shelf(), make(by_receipt=True)
    for n in range(20):
        shelf.add("alarms" if n == 11 else "readings")
    queue.begin(shelf.latest, 1, 20)
    drain(queue, shelf)
    queue.receipt(Ranges([(1, 20)]))
    assert queue.resend(10, 14)
    fresh = shelf.add("readings")
    order = fill(queue, shelf)
    assert order == [fresh, 10, 11, 12, 13, 14]
    assert [queue.is_repeat(seq) for seq in order] == [False, *[True] * 5]
    queue.begin(shelf.latest, 1, 20)  # the connection is lost: they are still owed
    assert sorted(fill(queue, shelf)) == [10, 11, 12, 13, 14, fresh]
    for seq in (10, 11, 12, 13, 14):
        assert not queue.acked(seq, 0.0)
    assert fill(queue, shelf) == []
    assert queue.settled.to_list() == [[1, 20]]
    assert all(queue.resend(1, 1) for _ in range(contract.MOST_RESENDS))
    assert not queue.resend(1, 1)
