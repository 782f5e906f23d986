"""What the API server of Kubeflow Pipelines 2.17.0 refuses, rule by rule, with the file that each was read from.

All files lie in `backend/src/apiserver`. Not played: tags, sorting by anything but the time of creation, other
comparisons of a filter than EQUALS, periodic triggers, plugins.
"""

import base64
import functools
import json
import re
from urllib.parse import unquote_plus

import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

# `model/experiment.go`, `pipeline.go`, `pipeline_version.go`, `job.go`: name in a filter -> name in what is listed.
FIELDS = {
    "experiments": {"experiment_id": "experiment_id", "name": "display_name", "display_name": "display_name"},
    "pipelines": {"pipeline_id": "pipeline_id", "name": "name", "display_name": "display_name"},
    "pipeline_versions": {"pipeline_version_id": "pipeline_version_id", "name": "name", "display_name": "display_name"},
    "recurringRuns": {"recurring_run_id": "recurring_run_id", "name": "display_name", "display_name": "display_name"},
    "runs": {"run_id": "run_id", "name": "display_name", "display_name": "display_name"},
}
# `validation/length.go`.
_LONGEST = {"Pipeline": 128, "PipelineVersion": 127, "Experiment": 128}
# `common/const.go` (`MaxFileLength`), `common/utils.go` (`ValidatePipelineName`), `template/v2_template.go`.
_MOST_BYTES, _PIPELINE_NAME, _SCHEMA = 32 << 20, re.compile(r"[a-z0-9][a-z0-9-]{0,127}"), "2.1.0"
# `server/list_request_util.go`.
_PAGE, _LARGEST_PAGE = 20, 200
_CRON_FIELD = re.compile(r"(\*|\?|\w+(-\w+)?)(/\d+)?(,(\*|\w+(-\w+)?)(/\d+)?)*")


class Refusal(Exception):
    """An answer with an HTTP status that is an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def same(one, other):
    """Whether the database takes two names for one: MySQL's collations ignore case (`client/sql.go`)."""
    return str(one).casefold() == str(other).casefold()


def page_of(plural, items, query):
    """The page that a list's query asks for: `server/list_request_util.go` and `list/list.go`."""
    text = query.get("filter", [""])[0]
    try:
        # Unquoted once more than HTTP does: `parseAPIFilter`.
        predicates = json.loads(unquote_plus(text))["predicates"] if text else []
    except (ValueError, KeyError) as error:
        raise Refusal(400, f"failed to parse valid filter from {text!r}: {error}") from None
    for predicate in predicates:
        if predicate["operation"] not in ("EQUALS", 1) or predicate["key"] not in FIELDS[plural]:
            raise Refusal(400, f"no support for filtering on {predicate}")
        key, wanted = FIELDS[plural][predicate["key"]], predicate["stringValue"]
        items = [item for item in items if same(item[key], wanted)]
    size = int(query.get("page_size", ["0"])[0] or 0)
    if size < 0:
        raise Refusal(400, "The page size should be greater than 0")
    size, token, begin = min(size or _PAGE, _LARGEST_PAGE), query.get("page_token", [""])[0], 0
    if token:
        asked = json.loads(base64.b64decode(token))
        if text and asked["filter"] != text:
            raise Refusal(400, "page token does not match the supplied sort by and/or filtering criteria")
        begin = asked["begin"]
    answer = {plural: items[begin : begin + size], "total_size": len(items)}
    if begin + size < len(items):
        following = json.dumps({"begin": begin + size, "filter": text}).encode()
        answer["next_page_token"] = base64.b64encode(following).decode()
    return answer


def check_length(model, name):
    """`validation/length.go`."""
    if len(name) > _LONGEST[model]:
        raise Refusal(400, f"{model}.Name length cannot exceed {_LONGEST[model]}")


def check_file(name, data):
    """`server/util.go`, `ReadPipelineFile`: the file's name says what it is."""
    if len(data) > _MOST_BYTES or not name.endswith((".yaml", ".yml", ".json")):
        raise Refusal(400, "Failed to read a pipeline spec file")


@functools.lru_cache(maxsize=16)
def form_of(text):
    """Parameters of the pipeline in a file: `template/v2_template.go`, `NewV2SpecTemplate`.

    The messages are the field's own, and a field that they do not have is refused, as by the server: also where
    `v2/compiler/argocompiler/container.go` reads what Kubernetes is asked for.
    """
    spec = None
    for document in yaml.load_all(text, yaml.CSafeLoader):
        if "platforms" in document:
            platform = _parse(document, pipeline_spec_pb2.PlatformSpec(), "cannot unmarshal platform specific configs")
            executors = json_format.MessageToDict(platform)["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            for config in executors.values():
                _parse(config, KubernetesExecutorConfig(), "failed to unmarshal kubernetes config")
        elif spec is not None:
            raise Refusal(400, "multiple pipeline specs provided")
        else:
            spec = _parse(document, pipeline_spec_pb2.PipelineSpec(), "no pipeline spec is provided")
    if spec is None or not spec.pipeline_info.name:
        raise Refusal(400, "no pipeline spec is provided")
    if spec.schema_version != _SCHEMA:
        raise Refusal(400, f"KFP only supports schema version 2.1.0, but the pipeline spec has {spec.schema_version}")
    if not _PIPELINE_NAME.fullmatch(spec.pipeline_info.name):
        raise Refusal(400, "pipeline's name must contain only lowercase alphanumeric characters or '-'")
    return json_format.MessageToDict(spec.root.input_definitions)["parameters"]


def check_parameters(form, given):
    """`template/v2_template.go`, `validatePipelineJobInputs`."""
    for name, facts in form.items():
        if name not in given and not facts.get("isOptional") and "defaultValue" not in facts:
            raise Refusal(
                400, f"parameter {name} is not optional, yet has neither default value nor user provided value"
            )
        if name in given and facts["parameterType"] == "STRING" and not isinstance(given[name], str):
            raise Refusal(400, f"input parameter {name} requires type string")
    if unknown := sorted(set(given) - set(form)):
        raise Refusal(400, f"parameter(s) provided are not required by pipeline: {', '.join(unknown)}")


def check_recurring(item):
    """`server/api_converter.go`, `toModelJob`."""
    if not 1 <= int(item.get("max_concurrency", 0)) <= 10:
        raise Refusal(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
    cron = item.get("trigger", {}).get("cron_schedule", {}).get("cron", "")
    if len(cron.split()) not in (5, 6) or not all(_CRON_FIELD.fullmatch(part) for part in cron.split()):
        raise Refusal(400, "Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron)")


def _parse(value, message, refusal):
    try:
        return json_format.ParseDict(value, message)
    except json_format.ParseError as error:
        raise Refusal(400, f"{refusal}: {error}") from None
