"""The double of Kubeflow's API server refuses what the server of 2.17.0 refuses."""

import json

import pytest
from tests.dags.kubeflow_rules import (
    Refusal,
    check_file,
    check_length,
    check_parameters,
    check_recurring,
    form_of,
    page_of,
)

SPEC = """
pipelineInfo: {name: qwenops-smoke}
schemaVersion: 2.1.0
sdkVersion: kfp-2.17.0
root:
  dag: {tasks: {}}
  inputDefinitions:
    parameters:
      run_name: {parameterType: STRING, defaultValue: smoke}
      needed: {parameterType: STRING}
"""


def named(text, key="name", operation="EQUALS"):
    return {"filter": [json.dumps({"predicates": [{"operation": operation, "key": key, "stringValue": text}]})]}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("qwenops-smoke", "Qwenops_smoke", "lowercase alphanumeric"),
        ("2.1.0", "2.2.0", "only supports schema version"),
        ("sdkVersion", "sdkversion", "no pipeline spec"),
        ("root:", "roots:", "no pipeline spec"),
    ],
)
def test_file_that_is_no_pipeline_of_this_server_is_refused(old, new, words):
    assert set(form_of(SPEC)) == {"run_name", "needed"}
    with pytest.raises(Refusal, match=words):
        form_of(SPEC.replace(old, new))


def test_pod_field_that_the_server_does_not_know_is_refused():
    executor = "platforms: {kubernetes: {deploymentSpec: {executors: {exec-a: {%s: Always}}}}}"
    form_of(f"{SPEC}---\n{executor % 'imagePullPolicy'}\n")
    with pytest.raises(Refusal, match="kubernetes config"):
        form_of(f"{SPEC}---\n{executor % 'pullPolicy'}\n")


def test_name_with_a_plus_is_not_found_by_its_own_filter():
    items = [{"name": "smoke@1+2", "display_name": "smoke@1+2"}]
    assert page_of("pipeline_versions", items, named("smoke@1+2"))["pipeline_versions"] == []
    assert page_of("pipeline_versions", items, named("smoke@1%2B2"))["pipeline_versions"] == items
    assert page_of("pipeline_versions", items, named("SMOKE@1%2B2"))["pipeline_versions"] == items


def test_list_comes_in_pages_of_twenty_or_at_most_two_hundred():
    items = [{"recurring_run_id": str(n), "display_name": f"run {n}"} for n in range(450)]
    first = page_of("recurringRuns", items, {})
    assert len(first["recurringRuns"]) == 20
    seen, query = [], {"page_size": ["1000"]}
    while True:
        page = page_of("recurringRuns", items, query)
        seen += page["recurringRuns"]
        if "next_page_token" not in page:
            break
        query["page_token"] = [page["next_page_token"]]
    assert seen == items
    for wrong in ({"page_size": ["-1"]}, query | named("run 3"), named("x", key="pod"), named("x", operation="LIKE")):
        with pytest.raises(Refusal):
            page_of("recurringRuns", items, wrong)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: check_length("PipelineVersion", "x" * 128),
        lambda: check_length("Pipeline", "x" * 129),
        lambda: check_file("pipeline.txt", b""),
        lambda: check_parameters(form_of(SPEC), {"needed": 3}),
        lambda: check_parameters(form_of(SPEC), {"needed": "a", "other": "b"}),
        lambda: check_parameters(form_of(SPEC), {"run_name": "a"}),
        lambda: check_recurring({"max_concurrency": "0", "trigger": {"cron_schedule": {"cron": "0 0 3 * * 1"}}}),
        lambda: check_recurring({"max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "0 0 3 *"}}}),
        lambda: check_recurring({"max_concurrency": "1", "trigger": {"cron_schedule": {"cron": "0 0 3 * * 1;"}}}),
    ],
)
def test_what_no_server_takes_is_refused(refused):
    with pytest.raises(Refusal):
        refused()
