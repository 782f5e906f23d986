import time

import torch

from qwenops.training.threads import choose_threads, remembered_threads


def test_choose_threads_takes_the_count_that_ran_fastest():
    before = torch.get_num_threads()
    try:
        chosen = choose_threads(lambda: time.sleep(0.02 if torch.get_num_threads() == 2 else 0.001), (1, 2))
        assert chosen == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_remembered_threads_measures_once_for_a_resumed_loop(tmp_path):
    before, calls = torch.get_num_threads(), []
    try:
        first = remembered_threads(tmp_path / "threads", lambda: calls.append(1))
        measured = len(calls)
        assert remembered_threads(tmp_path / "threads", lambda: calls.append(1)) == first
        assert len(calls) == measured
    finally:
        torch.set_num_threads(before)
