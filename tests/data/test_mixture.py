"""The mixture search: a planted optimum is recovered, caps hold, and real proxies give weights that sum to one."""

import json

import numpy as np
import pytest

from qwenops.contracts.document import documents_from_rows, write_part
from qwenops.data.mixture.config import MixtureConfig
from qwenops.data.mixture.run import run
from qwenops.data.mixture.search import SearchSpace, cap_weights, search_mixture
from qwenops.data.tokenizer.bpe import save, train
from qwenops.training.config import TrainingConfig

NO_CAPS = np.ones(3)
# Averaging the best simulated mixtures of a noisy regression: shares are met to a few hundredths.
SHARE_TOLERANCE = 0.08


def planted_loss(mixtures, importance, rng):
    """Losses that fall with the logarithm of each share: the optimum is proportional to `importance`."""
    return 5 - np.log(mixtures + 0.01) @ importance + rng.normal(0, 0.01, len(mixtures))


@pytest.mark.parametrize("importance", [(0.6, 0.3, 0.1), (0.2, 0.2, 0.6)])
def test_search_recovers_a_planted_optimum(importance):
    rng = np.random.default_rng(0)
    space = SearchSpace(np.full(3, 1 / 3), NO_CAPS, 0.5, 5.0)
    mixtures = space.draw(64, rng)
    outcome = search_mixture(
        mixtures, planted_loss(mixtures, np.array(importance), rng), space, simulated=20_000, averaged=50, rng=rng
    )
    assert outcome.spearman > 0.9
    assert np.abs(outcome.weights - importance).max() < SHARE_TOLERANCE
    assert outcome.weights.sum() == pytest.approx(1)


def test_search_on_noise_says_so():
    rng = np.random.default_rng(1)
    space = SearchSpace(np.full(3, 1 / 3), NO_CAPS, 0.5, 5.0)
    mixtures = space.draw(40, rng)
    outcome = search_mixture(mixtures, rng.normal(size=40), space, simulated=1000, averaged=10, rng=rng)
    assert outcome.spearman < 0.5


def test_search_stays_below_the_caps():
    rng = np.random.default_rng(2)
    caps = np.array([0.3, 1.0, 1.0])
    space = SearchSpace(np.full(3, 1 / 3), caps, 0.5, 5.0)
    mixtures = space.draw(64, rng)
    outcome = search_mixture(mixtures, -mixtures[:, 0], space, simulated=5000, averaged=50, rng=rng)
    assert outcome.weights[0] <= 0.3 + 1e-9
    assert outcome.weights[0] > 0.25


def test_draw_keeps_the_prior_share_of_every_bucket():
    space = SearchSpace(np.array([0.8, 0.15, 0.05]), NO_CAPS, 0.1, 5.0, prior_share=0.5)
    drawn = space.draw(1000, np.random.default_rng(3))
    assert (drawn >= 0.5 * space.prior - 1e-9).all()
    assert np.allclose(drawn.sum(axis=1), 1)


def test_caps_without_room_give_shares_proportional_to_them():
    assert cap_weights(np.array([[0.5, 0.5]]), np.array([0.1, 0.3])) == pytest.approx(np.array([[0.25, 0.75]]))


def make_inputs(folder):
    texts = {"web": "plain words of a page about the sea and the sky ", "code": "def add(a, b):\n    return a + b\n"}
    rows = [
        {
            "id": f"{domain}{n}",
            "text": text * (5 + n % 5),
            "source": "s",
            "domain": domain,
            "url": "",
            "license": "MIT",
            "lang": "en",
            "lang_score": 1.0,
            "split": "train",
        }
        for domain, text in texts.items()
        for n in range(30)
    ]
    write_part(documents_from_rows(rows), folder / "documents" / "part-00000.parquet")
    save(train([row["text"] for row in rows], 300, 2), folder / "tokenizer")


def tiny_config(**changes):
    training = TrainingConfig(
        steps=4, batch_tokens=128, learning_rate=1e-2, final_learning_rate=1e-3, warmup_steps=1, precision="fp32"
    )
    values = {
        "proxies": 4,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "context_length_tokens": 16,
        "sample_bytes": 5000,
        "measured_rows": 4,
        "simulated": 500,
        "averaged": 10,
        "planned_tokens": 2000,
    }
    return MixtureConfig(training=training, **values | changes)


def test_stage_writes_weights_and_trains_the_same_proxies_again(tmp_path, make_stage):
    make_inputs(tmp_path)
    files = []
    for name in ("one", "two"):
        stage = make_stage(name)
        run(tiny_config(), documents=tmp_path, tokenizer=tmp_path / "tokenizer", stage=stage)
        files.append((stage.out / "mixture.json").read_text())
        assert {"mixture.proxy_loss.prior", "mixture.proxy_loss.chosen", "mixture.spearman"} <= set(stage.metrics)
    weights = json.loads(files[0])["weights"]
    assert set(weights) == {"code", "web_en"}
    assert sum(weights.values()) == pytest.approx(1)
    assert files[0] == files[1]


def test_stage_without_room_below_the_epoch_cap_keeps_the_prior(tmp_path, make_stage):
    make_inputs(tmp_path)
    stage = make_stage("mixture")
    run(tiny_config(planned_tokens=10**9), documents=tmp_path, tokenizer=tmp_path / "tokenizer", stage=stage)
    facts = json.loads((stage.out / "mixture.json").read_text())
    assert facts["weights"] == pytest.approx(facts["prior"])
    assert any("repeats" in sentence for sentence in stage.warnings)
