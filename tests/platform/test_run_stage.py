"""The driver's token survives KubeRay's handling of an entrypoint; its exit status is the error family's."""

import json
import os
import re
import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenops.platform.context import RunContext
from qwenops.platform.kubernetes.token import read_token, write_token
from qwenops.platform.launch import driver
from qwenops.recipe.codec import canonical


def token(slice_text, job="job", **fields):
    sent = {"stage": "toy.counter", "slice": slice_text, "inputs": {}}
    return write_token(sent, RunContext("/s", "/e", "/c", **fields), job)


@given(st.text())
def test_token_needs_no_quotes(text):
    made = token(text)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", made)
    # Split like a shell, joined with blanks: what the operator does to an entrypoint.
    assert " ".join(shlex.split(f"python -m x {made}")).split()[3] == made


def test_driver_connects_to_its_own_cluster_and_launches_nothing(counter):
    context = RunContext.from_environment(os.environ | {"QWENOPS_CLUSTER": "{}", "QWENOPS_RAY_ADDRESS": "elsewhere"})
    slice_text = canonical({"node": "counter", "seed": 1, "config": {"value": 5}})
    sent = {"stage": "toy.counter", "slice": slice_text, "inputs": {}}
    (published,) = driver.run(write_token(sent, context, "job-1"))
    assert (published.path / "value.txt").read_text() == "5"
    event = json.loads((counter / "events" / "counter.json").read_text())
    assert (event["status"], event["job"]) == ("succeeded", "job-1")


def test_secrets_of_the_step_stay_out_of_the_token(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    facts = read_token(token("x"))
    assert "hunter2" not in json.dumps(facts)
    assert facts["environment"] == {"MLFLOW_RUN_ID": "abc"}


@pytest.mark.parametrize(("fault", "status"), [("contract", 3), ("lost", 4)])
def test_exit_status_is_the_familys(counter, monkeypatch, fault, status):
    context = RunContext.from_environment()
    slice_text = canonical({"node": "counter", "seed": 1, "config": {"fault": fault}})
    sent = {"stage": "toy.counter", "slice": slice_text, "inputs": {}}
    monkeypatch.setattr(sys, "argv", ["run_stage", write_token(sent, context, "job")])
    with pytest.raises(SystemExit) as end:
        driver.main()
    assert end.value.code == status
