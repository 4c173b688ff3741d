"""What the doctor found, for people and for programs."""

import math
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """What one check found: the evidence in a sentence and in numbers; for a failure what it usually means, too."""

    name: str
    status: Status
    evidence: str
    meaning: str = ""
    advice: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)  # JSON's types only


@dataclass(frozen=True)
class Diagnosis:
    """Every check's result, in the order of the ladder, and what was done to keep the cost small."""

    results: tuple[Result, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """No check failed; some may have been skipped."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that failed, in order: the first is the one to mend first."""
        return tuple(result for result in self.results if result.status == "failed")

    def __getitem__(self, name: str) -> Result:
        """The result of the check with this name."""
        return next(result for result in self.results if result.name == name)

    def table(self) -> str:
        """One aligned line for each check; below, for each failure, what it usually means and what to do."""
        width = max(len(result.name) for result in self.results)
        lines = [f"{result.name:<{width}}  {result.status:<7}  {result.evidence}" for result in self.results]
        counts = [sum(result.status == status for result in self.results) for status in ("passed", "failed", "skipped")]
        lines += ["", "; ".join(["{} passed, {} failed, {} skipped".format(*counts), *self.notes])]
        for result in self.failures:
            lines += ["", f"{result.name} failed: {result.evidence}"]
            lines += textwrap.wrap(f"Usually: {result.meaning}", 110, initial_indent="  ", subsequent_indent="    ")
            lines += textwrap.wrap(f"Try: {result.advice}", 110, initial_indent="  ", subsequent_indent="    ")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All of it as values that `json.dumps` takes; nan becomes null."""
        return {
            "passed": self.passed,
            "results": [_without_nan(asdict(result)) for result in self.results],
            "notes": list(self.notes),
        }


def _without_nan(value: Any) -> Any:
    """JSON has no nan and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
