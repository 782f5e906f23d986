"""What the verdict of the evaluation gate does to a run on a cluster."""

import json

from qwenops.errors import ContractError, RecipeError
from qwenops.platform.context import RunContext
from qwenops.platform.launch.kfp_artifacts import address_of
from qwenops.platform.storage import artifacts
from qwenops_pipelines.steps.failures import recorded

CHOICES = ("report", "fail")


@recorded("enforce-gate")
def enforce_gate(verdict: str, failed_gate: str) -> None:
    """Print the verdict; end the step as failed when the gate did not pass and the run asks for that.

    Args:
        verdict: The register stage's artifact: its folder, its address, or the file of the step that made it.
        failed_gate: "report" or "fail".

    Raises:
        RecipeError: `failed_gate` is neither.
        ContractError: the gate did not pass and `failed_gate` is "fail", or there is no verdict.
    """
    if failed_gate not in CHOICES:
        raise RecipeError(
            "bad failed_gate", expected=" or ".join(CHOICES), found=failed_gate, action="start the run again"
        )
    folder = artifacts.local_copy(address_of(verdict), RunContext.from_environment())
    facts = json.loads((folder / "register.json").read_text(encoding="utf-8"))
    print(f"gate {'passed' if facts['passed'] else 'not passed'}: {'; '.join(facts['reasons'])}")
    if failed_gate == "fail" and not facts["passed"]:
        raise ContractError(
            "the evaluation gate did not pass",
            expected="every rule of the gate to hold",
            found="; ".join(facts["reasons"]),
            action="look at the register step's summary; the champion alias was not moved",
        )
