"""What Kubeflow's driver and launcher hand each other, as the messages of the field's own package.

`protojson` refuses a field that a message does not have and a number that JSON cannot hold; so does `json_format`. The
rules are those of Kubeflow Pipelines 2.17.0: `backend/src/v2/component/launcher_v2.go` (`NewLauncherV2`,
`getExecutorOutputFile`, `collectOutputParameters`, `getArtifactSchema`), `backend/src/v2/metadata/converter.go`
(`toMLMDArtifact`, `toRuntimeArtifact`, `TextToPbValue`), `client.go` (`RecordArtifact`, `ToRuntimeArtifact`).
"""

import json
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import ExecutorInput, ExecutorOutput
from tests.dags.kfp_objects import LauncherError

Json = dict[str, Any]
# MAX_ARG_STRLEN of Linux: the launcher gets the executor's input as one argument and hands it on as another.
_LONGEST_ARGUMENT = 131_072


def executor_input(message: Json) -> Json:
    """The executor's input as the launcher reads it and hands it to the step."""
    try:
        parsed = json_format.ParseDict(message, ExecutorInput())
    except json_format.ParseError as error:
        raise LauncherError(f"failed to unmarshal executor input: {error}") from None
    text = json_format.MessageToJson(parsed, indent=None)
    if len(text.encode()) >= _LONGEST_ARGUMENT:
        raise LauncherError("fork/exec: argument list too long")
    return json.loads(text)


def executor_output(text: str) -> Json:
    """What the step wrote."""
    try:
        parsed = json_format.Parse(text, ExecutorOutput())
        # Python's reader takes NaN, the server's does not.
        json.loads(text, parse_constant=_no_number)
    except (json_format.ParseError, ValueError) as error:
        raise LauncherError(f"failed to unmarshall ExecutorOutput: {error}") from None
    return json_format.MessageToDict(parsed)


def parameter_value(text: str, kind: str) -> Any:
    """`TextToPbValue`: a parameter that a step left in a file."""
    try:
        match kind:
            case "STRING":
                return text
            case "NUMBER_INTEGER":
                return float(int(text.strip()))
            case "NUMBER_DOUBLE":
                return float(text.strip())
            case "BOOLEAN" if text.strip().lower() in ("true", "false", "1", "0", "t", "f"):
                return text.strip().lower() in ("true", "1", "t")
            case "LIST" | "STRUCT" if isinstance(json.loads(text), list if kind == "LIST" else dict):
                return json.loads(text)
    except ValueError:
        pass
    raise LauncherError(f"TextToPbValue(text={text[:80]!r}, type={kind!r}) failed")


def recorded(name: str, artifact: Json) -> Json:
    """The artifact as ML Metadata keeps it and hands it on: numbers are doubles, lists and structs are wrapped."""
    kind = artifact["type"]
    if "instanceSchema" not in kind and "schemaTitle" not in kind:
        raise LauncherError(f'failed to determine schema for output "{name}"')
    kept: Json = {"display_name": name, "store_session_info": "{}"}
    for key, value in artifact.get("metadata", {}).items():
        match value:
            case None:
                raise LauncherError(
                    f'unable to produce MLMD artifact for output "{name}": unknown/unsupported value type'
                )
            case str():
                kept[key] = value
            case bool() | int() | float():
                kept[key] = float(value)
            case list():
                kept[key] = {"list": value}
            case _:
                kept[key] = {"struct": value}
    # The schema of what is handed on: a title is lost ("TODO" in `GetOutputArtifactsByExecutionId`).
    return {"uri": artifact["uri"], "type": {"instanceSchema": kind.get("instanceSchema", "")}, "metadata": kept}


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
