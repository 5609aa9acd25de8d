"""Reading ahead and writing behind: order, bounds, and errors that come through."""

import threading

import pytest

from reelwright.stages.embed.threads import Background, read_ahead


def numbers(count, *, closed=None, error=None):
    try:
        yield from range(count)
        if error is not None:
            raise error
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


def test_events_come_in_order_and_the_generator_is_closed_in_its_thread():
    closed = []
    with read_ahead(numbers(50, closed=closed), depth=3) as events:
        assert list(events) == list(range(50))
    assert closed == ["reelwright-reader"]


def test_reading_is_bounded():
    taken = []

    def source():
        for number in range(100):
            taken.append(number)
            yield number

    with read_ahead(source(), depth=2) as events:
        for _ in range(5):
            next(events)
        assert max(taken) <= 5 + 2 + 1
    assert len(taken) < 100


def test_leaving_early_closes_the_generator():
    closed = []
    with read_ahead(numbers(1000, closed=closed), depth=2) as events:
        assert next(events) == 0
    assert closed == ["reelwright-reader"]


def test_an_error_is_raised_after_the_events_before_it():
    with read_ahead(numbers(2, error=OSError("no disk")), depth=5) as events:
        assert [next(events), next(events)] == [0, 1]
        with pytest.raises(OSError, match="no disk"):
            next(events)


def test_calls_run_in_order_in_another_thread():
    seen = []
    with Background(depth=2) as background:
        for number in range(20):
            background.call(lambda number=number: seen.append((number, threading.current_thread().name)))
    assert seen == [(number, "reelwright-writer") for number in range(20)]


def test_the_first_error_of_a_call_is_raised_and_later_calls_are_left_out():
    seen = []

    def fail():
        raise OSError("disk full")

    def calls():
        with Background(depth=10) as background:
            for function in (lambda: seen.append(1), fail, lambda: seen.append(2)):
                background.call(function)

    with pytest.raises(OSError, match="disk full"):
        calls()
    assert seen == [1]
