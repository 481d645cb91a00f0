"""The threads of compiled kernels: how many, and that every part of the work is done once, whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from gpunet_backends.threads import LIMITS, run_parts, thread_count

CUTS = [(0, 3), (3, 7), (7, 8)]
WAIT = 20  # seconds; only what fails waits so long


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)


# ---- how many


def test_as_many_threads_as_the_process_has_cores(eight_cores):
    assert thread_count() == 8


def test_as_many_threads_as_the_machine_has_cores_where_the_system_cannot_tell(eight_cores, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert thread_count() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert thread_count() == 1


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
@pytest.mark.parametrize(("value", "count"), [("1", 1), ("3", 3), ("8", 8), ("99", 8), ("2,1", 2)])
def test_the_environment_limits_the_threads(value, count, name, eight_cores, monkeypatch):
    monkeypatch.setenv(name, value)
    assert thread_count() == count


def test_the_first_limit_that_is_set_counts(eight_cores, monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert thread_count() == 6


@pytest.mark.parametrize("junk", ["", "0", "-2", "1.5", "many", ",4", "²", "0x2"])
def test_a_limit_that_is_no_number_does_not_count(junk, eight_cores, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", junk)
    assert thread_count() == 8
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert thread_count() == 2


# ---- the parts


def done(times=1):
    """The parts that ``run_parts`` ran, in order."""
    found = []
    for _ in range(times):
        run_parts(lambda name, first, last: found.append((name, first, last)), ("x",), CUTS)
    return sorted(found)


EACH_ONCE = [("x", *cut) for cut in CUTS]


def test_each_part_runs_once():
    assert done() == EACH_ONCE
    assert done(100) == sorted(EACH_ONCE * 100)


def test_parts_run_at_the_same_time():
    barrier = threading.Barrier(len(CUTS))
    run_parts(lambda first, last: barrier.wait(WAIT), (), CUTS)
    assert not barrier.broken


def test_a_single_part_needs_no_other_thread():
    ran = []
    run_parts(lambda first, last: ran.append(threading.current_thread()), (), [(0, 5)])
    assert ran == [threading.current_thread()]


@pytest.mark.parametrize("failing", range(len(CUTS)))
def test_an_error_of_any_part_is_raised_when_all_have_ended(failing):
    ended = []

    def part(first, last):
        if (first, last) == CUTS[failing]:
            raise KeyError(first)
        time.sleep(0.02)
        ended.append((first, last))

    for _ in range(2):
        ended.clear()
        with pytest.raises(KeyError, match=str(CUTS[failing][0])):
            run_parts(part, (), CUTS)
        assert sorted(ended) == [cut for cut in CUTS if cut != CUTS[failing]]
    assert done() == EACH_ONCE


def test_parts_of_a_part_run_one_after_another():
    inner = []

    def part(first, last):
        run_parts(lambda a, b: inner.append((a, b, threading.get_ident())), (), CUTS)

    run_parts(part, (), CUTS)
    assert sorted(i[:2] for i in inner) == sorted(CUTS * 3)
    assert len({i[2] for i in inner}) == 3
    assert done() == EACH_ONCE


def test_several_threads_may_use_the_pool():
    found = []
    users = [threading.Thread(target=lambda: found.extend(done(200))) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert sorted(found) == sorted(EACH_ONCE * 800)


def test_what_was_computed_is_not_kept_alive():
    import gc
    import weakref

    class Array:
        pass

    array = Array()
    gone = weakref.ref(array)
    run_parts(lambda array, first, last: None, (array,), CUTS)
    del array
    for _ in range(100):
        gc.collect()
        if gone() is None:
            return
        time.sleep(0.01)
    pytest.fail("a worker still holds its arguments")


# ---- in a process of its own


def python(code):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=20)


INTERRUPTED = """
import os, signal, time
from gpunet_backends.threads import run_parts

def interrupt(first, last):  # the caller is waiting by now
    if first:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)

try:
    run_parts(interrupt, (), [(0, 1), (1, 2)])
except KeyboardInterrupt:
    print("interrupted")
for _ in range(3):
    ran = []
    run_parts(lambda first, last: time.sleep(0.05 * first) or ran.append((first, last)), (), [(0, 1), (1, 2)])
    print(sorted(ran))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_every_part_runs_after_the_user_interrupted_one():
    ran = python(INTERRUPTED)
    assert ran.stdout == "interrupted\n" + "[(0, 1), (1, 2)]\n" * 3, ran.stderr


FORKED = """
import os, threading
from gpunet_backends.threads import run_parts

def both_run():
    barrier = threading.Barrier(2)
    run_parts(lambda first, last: barrier.wait(10), (), [(0, 1), (1, 2)])

def fork_and_run(first=0, last=1):
    child = os.fork()
    if child == 0:
        both_run()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

both_run()
fork_and_run()
run_parts(lambda first, last: first or fork_and_run(), (), [(0, 1), (1, 2)])  # while the pool is in use
both_run()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    ran = python(FORKED)
    assert ran.stdout == "fine\n", ran.stderr


def test_workers_do_not_keep_the_process_alive():
    ran = python("from gpunet_backends.threads import run_parts; run_parts(print, ('part',), [(0, 1), (1, 2)])")
    assert (ran.returncode, ran.stdout.count("part")) == (0, 2), ran.stderr
