"""Great Expectations gates: an artifact whose summary or sample breaks its suite stops the run here.

Statistics are computed by the stages' own passes; Great Expectations sees a summary table and a bounded sample,
so a gate costs tenths of a second whatever the size of the artifact. The suites are data
(`expectations/*.json`): two lists, `summary` and `sample`, of expectations with a severity and a note. A failed
`critical` expectation raises; `warning` and `info` are reported.

Importing Great Expectations takes four seconds of a processor, which a worker process that unpickles a function of a
stage need not pay: it is imported where a table is validated.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from qwenops.errors import ContractError

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")  # read while the package is imported
SAMPLE_ROWS = 2000
_SUITES = Path(__file__).parent / "expectations"
_TABLES = ("summary", "sample")
_SHOWN_VALUES = 5
_SHOWN_CHARACTERS = 400
# Of the rendered page the sections are kept: its scripts, styles and logo come from other hosts, and the published
# page must open without a network. Random ids and times go, so that equal artifacts have equal digests.
_SECTIONS = re.compile(r'<div id="section-1".*?(?=<footer)', re.DOTALL)
_RANDOM = re.compile(r"<script\b.*?</script\s*>|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", re.DOTALL)
_STYLE = """<style>body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #ddd;padding:.3rem .6rem;text-align:left}
.badge{background:#eee;padding:0 .3rem}.fa-check-circle::before{content:"\\2713";color:#2a7}
.fa-times::before,.fa-exclamation-triangle::before{content:"\\2717";color:#c33}</style>"""


@dataclass(frozen=True)
class GateResult:
    """What a gate found.

    Attributes:
        name: Name of the suite.
        evaluated: Expectations evaluated.
        failures: One sentence per failed expectation below critical, for `stage.warn`.
    """

    name: str
    evaluated: int
    failures: tuple[str, ...]


def gate(suite: str, summary: pd.DataFrame, sample: pd.DataFrame, out: Path) -> GateResult:
    """Validate both tables against `expectations/<suite>`; write `gate/<name>.json` and `gate/<name>.html` into `out`.

    Args:
        suite: File name of the suite, written out by the stage, so that a changed suite concerns its stages alone.
        summary: One row per group (domain, shard, strategy), as the suite's columns say.
        sample: Rows of the artifact; only the first `SAMPLE_ROWS` are looked at, so shuffle before.
        out: The stage's output folder.

    Raises:
        ContractError: a critical expectation failed, or could not be evaluated.
    """
    suites, name = load_suite(suite), Path(suite).stem
    tables = {"summary": summary, "sample": sample.head(SAMPLE_ROWS)}
    results = {table: _validate(f"{name}.{table}", suites[table], tables[table]) for table in _TABLES}
    _write(name, results, out / "gate")
    failed: list[tuple[str, Any]] = [
        (table, result) for table in _TABLES for result in results[table].results if not result.success
    ]
    critical = [pair for pair in failed if pair[1].expectation_config.severity == "critical"]
    if critical:
        raise _error(name, critical, out)
    evaluated = sum(len(result.results) for result in results.values())
    return GateResult(name, evaluated, tuple(_sentence(table, result) for table, result in failed))


def load_suite(suite: str) -> dict[str, list[dict[str, Any]]]:
    """Read the suite in the file `suite`: table name to its expectations.

    Raises:
        ContractError: there is no such suite.
    """
    path = _SUITES / suite
    if not path.is_file():
        known = ", ".join(sorted(entry.name for entry in _SUITES.glob("*.json")))
        raise ContractError(
            f"no expectation suite {suite}", expected=f"one of {known}", found=suite, action=f"add {path} beside them"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def conversation_tables(rows: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summary and sample of conversation rows for the suite `conversations`; demonstrations only, with an answer.

    Returns:
        Summary [strategy, split, rows] and sample [id, strategy, split, lang, turns, first_role, last_role,
        prompt_characters, answer_characters, finish]; `finish` is "unsaid" where a row does not tell.
    """
    table = pd.DataFrame([_conversation_facts(row) for row in rows], columns=list(_CONVERSATION_COLUMNS))
    return _group(table, ["strategy", "split"]), table


def preference_tables(rows: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summary and sample of preference rows for the suite `preferences`.

    Returns:
        Summary [strategy, split, rows] and sample [id, strategy, source, judge, split, lang, margin, turns, last_role,
        chosen_characters, rejected_characters, same_answer, chosen_finish, rejected_finish].
    """
    table = pd.DataFrame([_preference_facts(row) for row in rows], columns=list(_PREFERENCE_COLUMNS))
    return _group(table, ["strategy", "split"]), table


_CONVERSATION_COLUMNS = (
    "id",
    "strategy",
    "split",
    "lang",
    "turns",
    "first_role",
    "last_role",
    "prompt_characters",
    "answer_characters",
    "finish",
)
_PREFERENCE_COLUMNS = (
    "id",
    "strategy",
    "source",
    "judge",
    "split",
    "lang",
    "margin",
    "turns",
    "last_role",
    "chosen_characters",
    "rejected_characters",
    "same_answer",
    "chosen_finish",
    "rejected_finish",
)


def _conversation_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    messages = row["messages"]
    return {
        **{name: row[name] for name in ("id", "strategy", "split", "lang")},
        "turns": len(messages),
        "first_role": messages[0]["role"],
        "last_role": messages[-1]["role"],
        "prompt_characters": sum(len(message["content"]) for message in messages[:-1]),
        "answer_characters": len(messages[-1]["content"]),
        "finish": row.get("finish") or "unsaid",
    }


def _preference_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("id", "strategy", "source", "judge", "split", "lang", "margin")},
        "turns": len(row["prompt"]),
        "last_role": row["prompt"][-1]["role"],
        "chosen_characters": len(row["chosen"]),
        "rejected_characters": len(row["rejected"]),
        "same_answer": str(row["chosen"] == row["rejected"]).lower(),
        **{name: row.get(name) or "unsaid" for name in ("chosen_finish", "rejected_finish")},
    }


def _group(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return table.groupby(columns, sort=True).size().reset_index(name="rows")


def _validate(name: str, expectations: list[dict[str, Any]], table: pd.DataFrame) -> "ExpectationSuiteValidationResult":
    # Seconds, see above.
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.data_context.types.base import ProgressBarsConfig

    _check_columns(name, expectations, table)
    context = _library().get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})
    configs = [
        {**{key: entry[key] for key in ("type", "kwargs", "severity")}, "meta": {"notes": entry["why"]}}
        for entry in expectations
    ]
    return batch.validate(ExpectationSuite(name=name, expectations=configs))


def _library() -> Any:
    """Great Expectations, whose functions are typed in part only."""
    # Seconds, see above.
    import great_expectations

    return great_expectations


def _check_columns(name: str, expectations: list[dict[str, Any]], table: pd.DataFrame) -> None:
    needed = {entry["kwargs"]["column"] for entry in expectations if "column" in entry["kwargs"]}
    missing = sorted(needed - set(table.columns))
    if missing:
        raise ContractError(
            f"gate {name} has no column {missing[0]}",
            expected=f"columns {', '.join(sorted(needed))}",
            found=", ".join(map(str, table.columns)),
            action="give the gate the columns of its suite",
        )


def _write(name: str, results: Mapping[str, "ExpectationSuiteValidationResult"], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {table: result.to_json_dict() for table, result in results.items()}
    for result in plain.values():
        del result["meta"]  # load times: they would give equal artifacts different digests
    (folder / f"{name}.json").write_text(json.dumps(plain, indent=1, sort_keys=True), encoding="utf-8")
    (folder / f"{name}.html").write_text(_page(name, results), encoding="utf-8")


def _page(name: str, results: Mapping[str, "ExpectationSuiteValidationResult"]) -> str:
    """One page with Great Expectations' own rendering of each table's results."""
    # Seconds, see above.
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaPageView

    bodies: list[str] = []
    renderer: Any = ValidationResultsPageRenderer()
    view: Any = DefaultJinjaPageView()
    for table, result in results.items():
        result.meta = {"great_expectations_version": _library().__version__}
        html = view.render(renderer.render(result))
        sections = _SECTIONS.search(_RANDOM.sub("", html))
        bodies.append(f"<h1>{name}: {table}</h1>\n{sections.group(0) if sections else ''}")
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>{_STYLE}</head>'
    return f"{head}<body>{''.join(bodies)}</body></html>\n"


def _error(name: str, critical: list[tuple[str, Any]], out: Path) -> ContractError:
    table, result = critical[0]
    config = result.expectation_config
    more = f" (and {len(critical) - 1} more)" if len(critical) > 1 else ""
    return ContractError(
        f"gate {name} failed at {table}{more}: {config.type} of {config.kwargs.get('column', 'the table')}",
        expected=f"{_rule(config.kwargs)}: {config.meta['notes']}",
        found=_observed(result),
        action=f"mend the data that this stage read or made; all results: {out / 'gate' / name}.html",
    )


def _sentence(table: str, result: Any) -> str:
    config = result.expectation_config
    column = config.kwargs.get("column", "table")
    return f"{table}.{column}: {config.meta['notes']}; found {_observed(result)}"


def _rule(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in kwargs.items() if key not in ("batch_id", "column"))


def _observed(result: Any) -> str:
    facts = result.result
    if "observed_value" in facts:
        return str(facts["observed_value"])
    if "unexpected_count" in facts:
        values = facts.get("partial_unexpected_list", [])[:_SHOWN_VALUES]
        return f"{facts['unexpected_count']} of {facts['element_count']} rows, such as {values}"
    # It could not be evaluated, because of a value of another type, say: one record per metric that failed.
    return "; ".join(str(info["exception_message"]) for info in result.exception_info.values())[:_SHOWN_CHARACTERS]
