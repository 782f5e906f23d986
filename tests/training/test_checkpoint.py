"""Kills, damage and policy of the checkpoints that a training loop resumes from."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.counting import number_batches, tiny_model

from qwenops.training.checkpoint import Checkpoints, LoopState
from qwenops.training.checkpoint_files import find_corruption, list_checkpoints
from qwenops.training.config import TrainingConfig
from qwenops.training.fit import FitCallbacks, fit
from qwenops.training.objective import language_modelling
from qwenops.training.optimizer import build_optimizer

CONFIG = TrainingConfig(
    steps=24,
    batch_tokens=64,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_steps=2,
    schedule="wsd",
    optimizer="muon",
    checkpoint_every_steps=2,
)


def _noisy_means(model, batch):
    """Draws from torch, numpy and Python, so that a state without one of the generators shows."""
    means, figures = language_modelling.means(model, batch)
    noise = 1 + 0.1 * torch.rand(()) + 0.1 * np.random.rand() + 0.1 * random.random()
    return {"text": means["text"] * noise}, figures


noisy = replace(language_modelling, means=_noisy_means)


def _train(folder, config, out=None, pipe=None):
    torch.set_num_threads(1)
    np.random.seed(0)
    random.seed(0)
    model = tiny_model()
    hooks = FitCallbacks(on_step=lambda report: pipe.send(report.step)) if pipe else FitCallbacks()
    fit(model, noisy, number_batches, config, hooks=hooks, state_dir=folder)
    torch.save(model.state_dict(), out)


def _run_with_kills(folder, config, kills, seed):
    """Start the loop again and again, killing it at a random moment after a random step, until it has ended."""
    fork, draw, killed, last = multiprocessing.get_context("fork"), random.Random(seed), 0, -1
    while True:
        receive, send = fork.Pipe(duplex=False)
        process = fork.Process(target=_train, args=(folder, config, folder / "out.pt", send))
        process.start()
        send.close()
        stop_at = last + draw.randint(2, 5) if killed < kills else config.steps
        try:
            while (step := receive.recv()) < stop_at:
                last = step
        except EOFError:
            pass
        if killed < kills and process.is_alive():
            # Anywhere within the next steps, writing a checkpoint included.
            time.sleep(draw.random() * 0.05)
            process.kill()
            killed += 1
        process.join()
        if process.exitcode == 0:
            return killed
        assert process.exitcode == -signal.SIGKILL


def _compare_with_uninterrupted(tmp_path, config, kills, seed):
    _train(tmp_path / "whole", config, tmp_path / "whole.pt")
    (tmp_path / "killed").mkdir()
    assert _run_with_kills(tmp_path / "killed", config, kills, seed) == kills
    expected, found = torch.load(tmp_path / "whole.pt"), torch.load(tmp_path / "killed" / "out.pt")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_loop_killed_three_times_ends_with_bitwise_the_same_weights(tmp_path):
    _compare_with_uninterrupted(tmp_path, CONFIG, kills=3, seed=1)


@pytest.mark.integration
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_loop_killed_twenty_times_ends_with_bitwise_the_same_weights(tmp_path, optimizer):
    config = CONFIG.model_copy(update={"steps": 110, "optimizer": optimizer, "checkpoint_every_steps": 3})
    _compare_with_uninterrupted(tmp_path, config, kills=20, seed=2)


def _interrupted_at(folder, step):
    def stop(report):
        if report.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(), noisy, number_batches, CONFIG, hooks=FitCallbacks(on_step=stop), state_dir=folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Checkpoints of a loop that was stopped after its tenth step; tests take copies."""
    folder = tmp_path_factory.mktemp("interrupted")
    _interrupted_at(folder, 9)
    return folder


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: _flip(next(folder.glob("*.distcp"))), "is not what was written"),
        (lambda folder: next(folder.glob("*.distcp")).write_bytes(b""), "is not what was written"),
        (lambda folder: next(folder.glob("rank-*.pt")).unlink(), "rank-0.pt is missing"),
        (lambda folder: (folder / "checkpoint.json").write_text("{", encoding="utf-8"), "cannot be read"),
        (lambda folder: (folder / "checkpoint.json").unlink(), "cannot be read"),
    ],
    ids=["one bit", "empty", "missing", "half a record", "no record"],
)
def test_damaged_checkpoint_is_left_for_the_one_before_and_said_so(tmp_path, interrupted, damage, says):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    newest, older = list_checkpoints(tmp_path)
    damage(newest)
    events, seen = [], []

    def stop(report):
        raise KeyboardInterrupt

    hooks = FitCallbacks(on_event=events.append, on_resume=lambda step, tokens: seen.append(step), on_step=stop)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_model(seed=1), language_modelling, number_batches, CONFIG, hooks=hooks, state_dir=tmp_path)
    assert seen == [int(older.name.removeprefix("step-"))] == [6]
    assert [newest.name in event and says in event for event in events] == [True]
    assert newest.with_name(newest.name + ".damaged").exists()


def test_loop_whose_checkpoints_are_all_damaged_starts_anew_with_the_same_weights(tmp_path):
    _interrupted_at(tmp_path, 9)
    for folder in list_checkpoints(tmp_path):
        _flip(folder / "checkpoint.json")
        shutil.copy(folder / "rank-0.pt", folder / ".metadata")
    events, whole, again = [], tiny_model(), tiny_model()
    fit(whole, language_modelling, number_batches, CONFIG)
    hooks = FitCallbacks(on_event=events.append)
    result = fit(again, language_modelling, number_batches, CONFIG, hooks=hooks, state_dir=tmp_path)
    assert len(events) == 2
    assert result.tokens == 24 * 64
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_half_written_checkpoint_is_never_read_and_goes_away(tmp_path):
    _interrupted_at(tmp_path, 5)
    newest = list_checkpoints(tmp_path)[0]
    shutil.copytree(newest, tmp_path / "step-000000099.part")
    seen = []
    hooks = FitCallbacks(on_resume=lambda step, tokens: seen.append(step))
    fit(tiny_model(), noisy, number_batches, CONFIG, hooks=hooks, state_dir=tmp_path)
    assert seen == [4]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_stay_as_the_policy_says(tmp_path, keep):
    config = CONFIG.model_copy(update={"keep_checkpoints": keep})
    fit(tiny_model(), noisy, number_batches, config, state_dir=tmp_path)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [f"step-{22 - 2 * i:09d}" for i in range(keep)]
    assert not any(find_corruption(folder) for folder in list_checkpoints(tmp_path))


def test_saved_weights_are_those_of_the_call_however_training_goes_on(tmp_path):
    model = tiny_model()
    optimizer = build_optimizer(model, CONFIG)
    fit(model, language_modelling, number_batches, CONFIG.model_copy(update={"steps": 2}), optimizer=optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoints = Checkpoints(tmp_path, 1, print)
    checkpoints.save(model, optimizer, LoopState(step=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert checkpoints.restore(model, optimizer) == LoopState(step=2)
    checkpoints.close()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_checkpoint_that_cannot_be_written_ends_the_loop(tmp_path):
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(OSError):
        fit(tiny_model(), language_modelling, number_batches, CONFIG, state_dir=blocked)


def test_record_of_a_checkpoint_names_the_digest_of_every_other_file(tmp_path):
    _interrupted_at(tmp_path, 3)
    folder = list_checkpoints(tmp_path)[0]
    record = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    assert set(record["digests"]) == {path.name for path in folder.iterdir()} - {"checkpoint.json"}
