"""Report what a data stage kept and dropped: counts, metrics and the two files beside the documents."""

import pyarrow as pa

from qwenops.contracts.document import Funnel, write_funnel
from qwenops.errors import ContractError
from qwenops.platform.stage.handle import Stage


def record_funnel(stage: Stage, funnel: Funnel, dropped: pa.Table | None = None) -> None:
    """Write `funnel.json` and `dropped_sample.jsonl`, and record counts and `documents.*` / `bytes.*` metrics.

    Raises:
        ContractError: nothing was kept, so no later stage could work.
    """
    write_funnel(stage.out, funnel, dropped)
    stage.count(read=funnel.read, kept=funnel.kept, dropped=funnel.dropped)
    for groups in (funnel.by_domain, funnel.by_language, funnel.by_source):
        for name, group in groups.items():
            stage.metric(f"documents.{name or 'unknown'}", group["documents"])
            stage.metric(f"bytes.{name or 'unknown'}", group["bytes"])
    if not funnel.kept:
        raise ContractError(
            f"{stage.node} kept no document",
            expected="at least one",
            found=f"dropped {funnel.dropped}",
            action="look at dropped_sample.jsonl for the reasons, add a source or relax a rule",
        )
