"""Threads: order, one BLAS thread and its return, failures."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from postclick.structure import threads
from postclick.structure.threads import one_blas_thread, spread


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order(count):
    def work(piece):
        time.sleep(0.002 * (piece % 3))
        return piece * piece

    assert list(spread(work, range(30), count)) == [piece * piece for piece in range(30)]


def test_several_threads_work():
    meet = threading.Barrier(2, timeout=5)
    assert len(list(spread(lambda _: meet.wait(), range(2), 2))) == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_failure_reaches_the_caller_and_ends_the_rest(count):
    done = []

    def work(piece):
        if piece == 3:
            raise ValueError("planted")
        done.append(piece)

    with pytest.raises(ValueError, match="planted"):
        list(spread(work, range(1000), count))
    assert len(done) < 50


def test_blas_has_one_thread_inside_and_what_it_had_after():
    library = threads._library()
    if library is None:
        pytest.skip("NumPy's BLAS is not its wheel's OpenBLAS")
    get, put = library
    before = get()
    try:
        put(2)
        held = one_blas_thread()
        assert held.__enter__()
        assert get() == 1
        failure = ValueError("planted")
        assert not held.__exit__(ValueError, failure, None)
        assert get() == 2
    finally:
        put(before)


def test_another_blas_keeps_its_setting(monkeypatch):
    monkeypatch.setattr(threads, "_library", lambda: None)
    with one_blas_thread() as arranged:
        assert not arranged
        assert (np.eye(3) @ np.eye(3) == np.eye(3)).all()
