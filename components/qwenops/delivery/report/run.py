"""Draw the run as one HTML page from the artifacts of all stages."""

from pathlib import Path

from qwenops.delivery.report.config import ReportConfig
from qwenops.delivery.report.facts import record_from
from qwenops.delivery.report.page import render
from qwenops.delivery.report.sections.dag import AREAS
from qwenops.errors import StageError
from qwenops.platform.observe.cost import cost_entry
from qwenops.platform.stage.handle import Stage

REPORT = "report.html"


def run(config: ReportConfig, *, stage: Stage, **artifacts: Path) -> None:
    """Write `report.html` for the nodes in `artifacts`.

    Raises:
        StageError: the page is larger than the config allows.
    """
    record = record_from(artifacts, stage.context.run_name)
    areas = {node: area for area, nodes in AREAS.items() for node in nodes}
    record |= cost_entry(record["stages"], areas, stage.context.account)
    page = render(record, artifacts, base=stage.out)
    found = len(page.encode())
    if found > config.most_bytes:
        raise StageError(
            "the report page is too large",
            expected=f"at most {config.most_bytes} bytes",
            found=found,
            action="raise report.most_bytes, or record fewer curves",
        )
    (stage.out / REPORT).write_text(page, encoding="utf-8")
    stage.metric("report.bytes", found)
    stage.records = len(artifacts)
