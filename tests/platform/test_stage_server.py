"""The stage server answers from a forked process and notices one that dies."""

import multiprocessing
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qwenops.errors import StageError
from qwenops.platform.context import RunContext
from qwenops.platform.launch import stage_server
from qwenops.platform.launch.launchers import LocalLauncher
from qwenops.platform.stage.events import Events
from qwenops.platform.stage.task import Task
from qwenops.recipe.config import Config
from qwenops.recipe.slice import Slice


def _serve(address):
    # Ray, started by an earlier test of this process, has left a handler that shuts Ray down, for ever in a fork.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stage_server.serve(address, _answer, slots=2)


def _answer(message):
    if message["do"] == "die":
        os.kill(os.getpid(), 9)
    if message["do"] == "end":
        os.kill(os.getppid(), 9)
        time.sleep(30)
    began = time.monotonic()
    time.sleep(message.get("seconds", 0))
    spent = {"began": began, "ended": time.monotonic(), "processors": sorted(os.sched_getaffinity(0))}
    return {"pid": os.getpid(), "server": os.getppid(), "echo": message["do"], **spent}


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


def test_as_many_stages_as_slots_run_at_once_and_the_next_waits(address):
    first, second, third = sorted(
        _at_once(address, *({"do": word, "seconds": 0.5} for word in "abc")), key=lambda answer: answer["began"]
    )
    assert second["began"] < first["ended"]
    assert third["began"] >= min(first["ended"], second["ended"])


def test_node_that_is_asked_for_twice_never_runs_beside_itself(address):
    one, other = _at_once(address, *({"do": word, "node": "dpo", "seconds": 0.3} for word in "ab"))
    assert one["began"] >= other["ended"] or other["began"] >= one["ended"]


def test_stage_that_shares_the_machine_has_one_slots_processors_alone_or_not(address):
    mine = sorted(os.sched_getaffinity(0))
    alone = _ask(address, "a", sharing=True)
    one, other = _at_once(address, *({"do": word, "sharing": True, "seconds": 0.3} for word in "ab"))
    assert len(alone["processors"]) == len(one["processors"]) == max(len(mine) // 2, 1)
    if len(mine) > 1:
        assert not set(one["processors"]) & set(other["processors"])
    assert _ask(address, "b")["processors"] == mine


def test_client_that_leaves_before_it_asks_does_not_end_the_server(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
    assert stage_server.is_up(address)
    assert _ask(address, "a")["echo"] == "a"


def test_death_of_a_stage_that_had_waited_is_noticed_while_another_still_runs(address):
    with ThreadPoolExecutor(4) as pool:
        asked = []
        for do, seconds in (("a", 0.4), ("b", 0.8), ("long", 4.0), ("die", 0.0)):
            asked.append(pool.submit(_ask, address, do, seconds=seconds))
            time.sleep(0.05)
        with pytest.raises(StageError, match="died without an answer"):
            asked[3].result()
        assert not asked[2].done()


@pytest.mark.parametrize(("do", "status"), [("die", "failed"), ("end", None)])
def test_stage_that_died_is_recorded_as_failed_and_one_of_a_run_that_was_ended_is_not(address, tmp_path, do, status):
    events = tmp_path / "events"
    context = RunContext(str(tmp_path), str(events), str(tmp_path), stage_server=address)
    task = Task("toy.counter", Slice(node="dpo", seed=1, config=Config()), {}, {})
    with pytest.raises(StageError, match="died without an answer"):
        LocalLauncher().launch(task, {"do": do, "node": "dpo"}, context)
    assert Events(events, "dpo").read().get("status") == status


def test_interrupt_of_the_terminal_does_not_end_the_server_by_itself(address):
    server = _ask(address, "a")["server"]
    os.kill(server, signal.SIGINT)
    assert _ask(address, "b")["server"] == server
