import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.delivery.artifacts import make_tokenizer, publish
from tests.model.small import TRAINED, small_model

from qwenops.contracts.tokens import TokenIndex, TokenShards, write_index, write_shard
from qwenops.errors import ContractError
from qwenops.evaluation.long_context.config import LongContextConfig
from qwenops.evaluation.long_context.grid import heldout_text, needle_rows_by_depth, score_text, text_windows
from qwenops.evaluation.long_context.run import run
from qwenops.model.checkpoints import save_checkpoint
from qwenops.platform.context import RunContext
from qwenops.platform.stage.handle import Stage

# Byte tokens: the needle's sentence alone takes about 40 of them, so the trained length is stated as 128.
LENGTH = 2 * TRAINED
CONFIG = LongContextConfig(
    modes=("plain", "dca"), multiples=(1, 2), depths=(0.2, 0.8), needles_per_depth=3, text_tokens=256, precision="fp32"
)


def make_shards(folder: Path, documents: int = 30) -> Path:
    rng = np.random.default_rng(0)
    texts = [[*rng.integers(0, 200, 90).tolist(), 256] for _ in range(documents)]
    shards = {
        f"{split}-web": write_shard(folder, f"{split}-web", texts, ["en"] * documents, 9000, "uint16")
        for split in ("train", "heldout")
    }
    write_index(folder, TokenIndex(259, "uint16", 256, {"web": 1.0}, shards))
    return publish(folder, "tokens")


def evaluate(folder: Path, config: LongContextConfig, *, documents: int = 30) -> Stage:
    tokenizer = make_tokenizer(folder / "tokenizer")
    model = small_model()
    model.config.max_position_embeddings = LENGTH
    save_checkpoint(model, tokenizer, folder / "extend", LENGTH, 0)
    (folder / "out").mkdir()
    (folder / "scratch").mkdir()
    context = RunContext(store=str(folder), events=str(folder), cache=str(folder))
    stage = Stage("long_context", 7, context, folder / "out", folder / "scratch")
    run(config, checkpoint=folder / "extend", tokens=make_shards(folder / "tokens", documents), stage=stage)
    return stage


def test_stage_reports_every_mode_and_length_and_agrees_within_the_trained_length(tmp_path):
    stage = evaluate(tmp_path, CONFIG)
    for multiple in (1, 2):
        for mode in ("plain", "dca"):
            assert stage.metrics[f"niah.{mode}.{multiple}x.needles"] == 6
            assert 0 <= stage.metrics[f"niah.{mode}.{multiple}x.accuracy"] <= 1
    assert stage.metrics["loss.dca.1x"] == pytest.approx(stage.metrics["loss.plain.1x"], abs=1e-5)
    assert stage.metrics["loss.dca.2x"] != pytest.approx(stage.metrics["loss.plain.2x"], abs=1e-5)
    grid = json.loads((stage.out / "grid.json").read_text())
    assert {(cell["mode"], cell["multiple"], cell["depth"]) for cell in grid["cells"]} == {
        (mode, multiple, depth) for mode in ("plain", "dca") for multiple in (1, 2) for depth in (0.2, 0.8)
    }
    assert all(cell["needles"] == 3 for cell in grid["cells"])
    assert stage.records == 2 * 2 * 6
    assert "| dca |" in (stage.out / "summary.md").read_text()


def test_stage_refuses_too_little_text(tmp_path):
    with pytest.raises(ContractError, match="too little held-out text"):
        evaluate(tmp_path, CONFIG, documents=3)


def test_text_rows_score_different_tokens_and_keep_the_targets_at_every_length():
    rows = text_windows(np.arange(3000), trained=100, longest=800, num_tokens=1000)
    assert rows.shape == (10, 801)
    targets = rows[:, -100:]
    assert len(np.unique(targets)) == 1000
    assert (np.diff(rows, axis=1) == 1).all()


def test_text_loss_of_one_length_does_not_depend_on_the_longest_row():
    model, text = small_model(), np.random.default_rng(0).integers(0, 200, 900)
    rows = text_windows(text, trained=64, longest=256, num_tokens=256)
    short = score_text(model, rows[:, -65:], trained=64, mode="plain", multiple=1)
    within = score_text(model, rows, trained=64, mode="plain", multiple=1, batch_tokens=64)
    assert within.loss == pytest.approx(short.loss, abs=1e-6)
    assert within.tokens == 256


def test_heldout_text_holds_each_document_once(tmp_path):
    shards = TokenShards(make_shards(tmp_path / "tokens"))
    text = heldout_text(shards, 10**6)
    assert len(text) == shards.tokens("heldout")
    assert int((text == 256).sum()) == 30
    assert len(heldout_text(shards, 200)) < 300


def test_needle_rows_stand_at_their_depth_and_every_call_gives_the_same(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    text = np.random.default_rng(0).integers(0, 200, 2000)
    first, again = (needle_rows_by_depth(tokenizer, text, 300, (0.1, 0.9), 4, seed=1) for _ in range(2))
    opening = torch.tensor(tokenizer.encode("\nThe secret number of "))
    for depth, rows in first.items():
        assert np.array_equal(rows.tokens, again[depth].tokens)
        for row in torch.from_numpy(rows.tokens):
            windows = row.unfold(0, len(opening), 1)
            places = (windows == opening).all(1).nonzero().flatten().tolist()
            assert len(places) == 2
            assert places[0] / places[1] == pytest.approx(depth, abs=0.2)
