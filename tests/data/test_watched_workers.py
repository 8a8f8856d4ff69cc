import multiprocessing
import os
import threading
import time

import pytest

from jaxgkd.data.watched_workers import map_watched
from jaxgkd.errors import ConfigError


def watched(work, items, **options):
    settings = {"seconds": 60, "late": "late", "died": "died", "workers": 2} | options
    return map_watched(work, items, **settings)


def test_results_come_in_order_without_reading_far_ahead():
    read = []

    def items():
        for i in range(5000):
            read.append(i)
            yield [i, i]

    results = watched(sum, items())
    assert next(results) == 0 and len(read) < 3000
    assert list(results) == [2 * i for i in range(1, 5000)]
    assert list(watched(sum, [])) == []


def test_all_processes_get_work():
    assert len(set(watched(_process, range(60), workers=2))) == 2


def _process(_):
    # Long enough for the other one to start.
    time.sleep(0.1)
    return os.getpid()


def test_an_item_that_takes_too_long_is_given_up_and_the_others_are_done():
    started = time.monotonic()
    # time.sleep holds its process up; the items after it still get theirs.
    assert list(watched(time.sleep, [0, 600, 0, 0], seconds=5)) == [None, "late", None, None]
    assert time.monotonic() - started < 300


def test_an_item_that_ends_its_process_is_told_apart():
    # 1 is the exit code of the process that works on it.
    assert list(watched(os._exit, [1], workers=1)) == ["died"]
    assert list(watched(_exit_at_three, range(5), workers=2)) == [0, 1, 2, "died", 4]


def _exit_at_three(number):
    if number == 3:
        os._exit(1)
    return number


def test_a_process_that_ended_while_it_waited_is_replaced():
    def items():
        for number in range(6):
            if number == 3:
                for process in multiprocessing.active_children():
                    process.kill()
                    process.join()
            yield number

    found = list(watched(str, items(), workers=1))
    # The process had been given the item before, and on a busy machine may not have answered yet.
    assert found.pop(2) in ("2", "died")
    assert found == ["0", "1", "3", "4", "5"]


def test_errors_come_through_and_settings_are_checked():
    with pytest.raises(TypeError):
        list(watched(sum, [[1], 7]))
    for options in ({"workers": 0}, {"seconds": 0}):
        with pytest.raises(ConfigError, match="cannot work"):
            next(watched(sum, [[1]], **options))


def test_no_process_is_left():
    before = threading.active_count()
    results = watched(os.getppid, [], workers=2)
    list(results)
    numbers = watched(_own_number, range(6), workers=2)
    first = next(numbers)
    numbers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert threading.active_count() == before


def _own_number(item):
    return os.getpid()
