"""The stage server answers from a forked process and notices one that dies."""

import multiprocessing
import os
import signal
import time

import pytest

from qwenops.errors import StageError
from qwenops.platform.launch import stage_server


def _serve(address):
    stage_server.PRELOAD = ()
    # Ray, started by an earlier test of this process, has left a handler that shuts Ray down, for ever in a fork.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    stage_server.serve(address, _answer)


def _answer(message):
    if message["do"] == "die":
        os.kill(os.getpid(), 9)
    return {"pid": os.getpid(), "echo": message["do"]}


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
    answers = [stage_server.request(address, {"do": word}) for word in ("a", "b")]
    assert [answer["echo"] for answer in answers] == ["a", "b"]
    assert len({answer["pid"] for answer in answers}) == 2


def test_server_when_the_stage_is_killed_raises_and_serves_on(address):
    with pytest.raises(StageError, match="died without an answer"):
        stage_server.request(address, {"do": "die"})
    assert stage_server.request(address, {"do": "c"})["echo"] == "c"
