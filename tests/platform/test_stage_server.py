"""The stage server answers from a forked process and notices one that dies."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qwenops.errors import StageError
from qwenops.platform.launch import stage_server


def _serve(address):
    stage_server.PRELOAD = ()
    # Ray, started by an earlier test of this process, has left a handler that shuts Ray down, for ever in a fork.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stage_server.serve(address, _answer, lanes=2)


def _answer(message):
    if message["do"] == "die":
        os.kill(os.getpid(), 9)
    began = time.monotonic()
    time.sleep(message.get("seconds", 0))
    spent = {"began": began, "ended": time.monotonic(), "processors": sorted(os.sched_getaffinity(0))}
    return {"pid": os.getpid(), "echo": message["do"], **spent}


def _ask(address, do, *, node="", sharing=False, seconds=0.0):
    return stage_server.request(address, {"do": do, "node": node or do, "sharing": sharing, "seconds": seconds})


@pytest.fixture
def address(tmp_path):
    path = str(tmp_path / "s.sock")
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(path,), daemon=True)
    server.start()
    while not os.path.exists(path):
        time.sleep(0.01)
    yield path
    server.terminate()
    server.join()


def test_server_answers_each_request_from_its_own_process(address):
    answers = [_ask(address, word) for word in ("a", "b")]
    assert [answer["echo"] for answer in answers] == ["a", "b"]
    assert len({answer["pid"] for answer in answers}) == 2


def test_server_when_the_stage_is_killed_raises_and_serves_on(address):
    with pytest.raises(StageError, match="died without an answer"):
        _ask(address, "die")
    assert _ask(address, "c")["echo"] == "c"


def _at_once(address, *asked):
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda request: _ask(address, **request), asked))


def test_as_many_stages_as_lanes_run_at_once_and_the_next_waits(address):
    first, second, third = sorted(
        _at_once(address, *({"do": word, "seconds": 0.5} for word in "abc")), key=lambda answer: answer["began"]
    )
    assert second["began"] < first["ended"]
    assert third["began"] >= min(first["ended"], second["ended"])


def test_node_that_is_asked_for_twice_never_runs_beside_itself(address):
    one, other = _at_once(address, *({"do": word, "node": "dpo", "seconds": 0.3} for word in "ab"))
    assert one["began"] >= other["ended"] or other["began"] >= one["ended"]


def test_stage_that_shares_the_machine_has_one_lanes_processors_alone_or_not(address):
    mine = sorted(os.sched_getaffinity(0))
    alone = _ask(address, "a", sharing=True)
    one, other = _at_once(address, *({"do": word, "sharing": True, "seconds": 0.3} for word in "ab"))
    assert len(alone["processors"]) == len(one["processors"]) == max(len(mine) // 2, 1)
    if len(mine) > 1:
        assert not set(one["processors"]) & set(other["processors"])
    assert _ask(address, "b")["processors"] == mine
