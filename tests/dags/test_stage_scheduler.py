"""Stages side by side on one machine: what shares the processors, and that a run takes what was started ahead."""

from datetime import datetime

import pytest

from qwenops.contracts.manifest import read_manifest
from qwenops_pipelines.dags.nodes import NODES, ancestors
from qwenops_pipelines.stage_scheduler import nodes_sharing_processors, num_slots


def test_what_the_dag_lets_run_beside_a_training_shares_the_processors_and_the_trunk_does_not():
    found = set(nodes_sharing_processors(NODES))
    assert {"upcycle", "long_context", "sft_seed", "sft", "reward", "dpo", "online"} <= found
    assert not found & {"collect", "decontaminate", "tokenizer", "tokens", "pretrain", "extend", "register", "report"}
    assert nodes_sharing_processors(ancestors("extend")) == ()


def test_run_with_workers_of_its_own_runs_one_stage_at_a_time():
    assert num_slots(num_workers=2) == 1


def test_stages_that_do_not_wait_for_each_other_ran_beside_each_other(smoke_run):
    if num_slots(num_workers=0) == 1:
        pytest.skip("one processor, or an accelerator")
    spans = {}
    for path in (smoke_run / "stages").glob("[!.]*/[!.]*"):
        manifest = read_manifest(path)
        ended = datetime.fromisoformat(manifest.created_at).timestamp()
        spans[manifest.node] = (ended - manifest.seconds, ended)
    assert spans["long_context"][0] < spans["online"][1]
    for node in NODES:  # a second is what the times are given in
        assert all(spans[source][1] <= spans[node.name][0] + 2 for source in node.inputs.values())
