"""Several nodes of one step: one after the other, by one RayJob on a cluster, each with its artifact and its record."""

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.platform.conftest import APP_FAILED, COMPLETE, INITIALIZING, RUNNING, Operator, drive, kubeconfig
from tests.platform.toy import toy_stage

from qwenops.contracts.manifest import read_manifest
from qwenops.errors import ContractError
from qwenops.platform.launch import driver
from qwenops.platform.launch.execute import Part, execute_in_turn
from qwenops.recipe.codec import canonical
from qwenops.recipe.placement import RayCluster

RUN = """
from qwenops.errors import ContractError
def run(config, *, stage, before=None):
    if config.fault:
        raise ContractError("bad input", expected="good", found=config.fault, action="mend")
    total = config.value + (int((before / "value.txt").read_text()) if before else 0)
    (stage.out / "value.txt").write_text(str(total))
    with (stage.scratch.parent.parent / "made").open("a") as log:
        log.write(f"{stage.node} ")
"""
GOOD = [INITIALIZING, RUNNING, drive, COMPLETE]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-1")
    with toy_stage(tmp_path, monkeypatch, RUN) as folder:
        yield folder


@pytest.fixture
def cluster(place, server, monkeypatch):
    (place / "kubeconfig").write_text(kubeconfig(server.url))
    monkeypatch.setenv("QWENOPS_KUBECONFIG", str(place / "kubeconfig"))
    monkeypatch.setenv("QWENOPS_POD_NAMESPACE", "team")
    monkeypatch.setenv("QWENOPS_CLUSTER", canonical(RayCluster(deletion_seconds=5, attempts=2)))
    return server


def parts(place, **faults):
    """`a`, `b` that reads it, `c` that reads `b`."""
    made, before = [], None
    for node in "abc":
        output = SimpleNamespace(path=str(place / f"{node}.output"), metadata={})
        slice_text = canonical({"node": node, "seed": 1, "config": {"value": 1, "fault": faults.get(node, "")}})
        inputs = {"before": before} if before else {}
        made.append(Part("toy.counter", slice_text, inputs, {"output": output}))
        before = output.path
    return made


def events(place):
    return {path.stem: json.loads(path.read_text()) for path in (place / "events" / "run-1").glob("*.json")}


def statuses(place):
    return {node: facts["status"] for node, facts in sorted(events(place).items())}


def made(place):
    return (place / "store" / "made").read_text().split()


def values(place):
    folders = [Path(json.loads((place / f"{node}.output").read_text())["address"]) for node in "abc"]
    return [(folder / "value.txt").read_text() for folder in folders]


def test_nodes_run_in_turn_in_the_step_itself(place):
    execute_in_turn(*parts(place))
    assert values(place) == ["1", "2", "3"]
    assert statuses(place) == dict.fromkeys("abc", "succeeded")
    assert made(place) == ["a", "b", "c"]


def test_one_job_makes_all_and_each_has_its_record(place, cluster):
    with Operator(cluster, GOOD) as operator:
        execute_in_turn(*parts(place))
    assert [name.rsplit("-", 2)[0] for name in operator.seen] == ["a-to-c"]
    assert values(place) == ["1", "2", "3"]
    assert statuses(place) == dict.fromkeys("abc", "succeeded")
    assert {facts["job"] for facts in events(place).values()} == set(operator.seen)
    outputs = [json.loads((place / f"{node}.output").read_text()) for node in "abc"]
    assert [output["node"] for output in outputs] == ["a", "b", "c"]
    assert len({read_manifest(Path(output["address"])).artifact_id for output in outputs}) == 3
    assert [key for key in cluster.store.objects if key[0] == "rayjobs"] == []


def test_finished_nodes_start_no_job(place, cluster, monkeypatch):
    with Operator(cluster, GOOD):
        execute_in_turn(*parts(place))
    before = len(cluster.requests)
    monkeypatch.setenv("QWENOPS_RUN_ID", "run-2")
    execute_in_turn(*parts(place))
    assert len(cluster.requests) == before
    assert {path.stem for path in (place / "events" / "run-2").glob("*.json")} == set("abc")
    assert all(json.loads(p.read_text())["status"] == "skipped" for p in (place / "events" / "run-2").glob("*.json"))


def test_a_job_that_follows_a_lost_one_goes_on_where_it_ended(place, cluster):
    """The head is lost after two nodes; the second job makes the third alone, and the record keeps the first two."""
    whole, done = driver.produce, []

    def until_lost(task, context, **given):
        if len(done) == 2:
            raise KeyError("the head is gone")
        done.append(task)
        return whole(task, context, **given)

    def half(operator, name):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyError):
            patch.setattr(driver, "produce", until_lost)
            drive(operator, name)

    lost = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "JobStatusCheckTimeoutExceeded"}
    with Operator(cluster, [INITIALIZING, RUNNING, half, lost], GOOD) as operator:
        execute_in_turn(*parts(place))
    assert len(operator.seen) == 2
    assert made(place) == ["a", "b", "c"]
    assert statuses(place) == dict.fromkeys("abc", "succeeded")
    assert [facts["job"] for _, facts in sorted(events(place).items())] == [operator.seen[0]] * 2 + [operator.seen[1]]


def test_the_node_that_failed_is_named_and_those_after_it_have_not_begun(place, cluster):
    with (
        Operator(cluster, [INITIALIZING, RUNNING, drive, APP_FAILED]) as operator,
        pytest.raises(ContractError, match="bad input"),
    ):
        execute_in_turn(*parts(place, b="this"))
    assert statuses(place) == {"a": "succeeded", "b": "failed"}
    assert len(operator.seen) == 1
    with Operator(cluster, GOOD) as operator:
        execute_in_turn(*parts(place))
    assert made(place) == ["a", "b", "c"]
