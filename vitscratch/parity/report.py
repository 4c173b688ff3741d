"""What a comparison found, as rows, as a table for people and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """One layer (or a parameter that belongs to no compared layer) in both models.

    `parameters` counts those that no other row counts, so the column adds up to the model's.
    Differences are absolute maxima over the layer's output and its own parameters (value) and over the
    gradients of both (gradient; None if they were not compared); relative ones are divided by the largest number of
    the reference's tensor. They are `inf` where shapes differ or a side is missing, and `nan` if a number is.
    `values_agree` and `gradients_agree` say whether every tensor is within tolerance. `note` names a side that is
    missing, and what was left out.
    """

    name: str
    shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    parameters: int
    value_diff: float
    gradient_diff: float | None
    value_diff_relative: float
    gradient_diff_relative: float | None
    values_agree: bool
    gradients_agree: bool
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All rows of a comparison, in the order in which ours computes them."""

    rows: list[Row]
    parameters_mapped: int
    unmapped_ours: list[str] = field(default_factory=list)
    unmapped_theirs: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def max_value_diff(self) -> float:
        """Largest absolute difference of values; inf or nan if any row's is."""
        return float(_worst([row.value_diff for row in self.rows]))

    @property
    def max_gradient_diff(self) -> float | None:
        """Largest absolute difference of gradients; inf or nan if any row's is, None if they were not compared."""
        return _worst([row.gradient_diff for row in self.rows])

    @property
    def first_divergence(self) -> Row | None:
        """Where the models first part: the first layer forwards whose values differ; if none does, the first
        backwards (so the last of the rows) whose gradients differ."""
        for row in self.rows:
            if not row.values_agree:
                return row
        for row in reversed(self.rows):
            if not row.gradients_agree:
                return row
        return None

    @property
    def passed(self) -> bool:
        """No row diverges and, unless the comparison was partial on purpose, no parameter was left out."""
        left_out = self.complete and (self.unmapped_ours or self.unmapped_theirs)
        return bool(self.rows) and self.first_divergence is None and not left_out

    def verdict(self) -> str:
        """One or two lines: agreement with its largest differences, or what diverges first and what is not mapped."""
        lines = []
        if (first := self.first_divergence) is not None:
            what = "values" if not first.values_agree else "gradients"
            difference = first.value_diff if what == "values" else first.gradient_diff
            if first.shape != first.reference_shape and first.shape and first.reference_shape:
                what = f"shapes {first.shape} and {first.reference_shape}"
            reason = f"; {first.note}" if first.note else ""
            lines.append(f"DIVERGES first at {first.name}: {what} differ (largest {_short(difference)}{reason})")
        for side, names in (("ours", self.unmapped_ours), ("the reference", self.unmapped_theirs)):
            if names:
                listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                lines.append(f"{len(names)} parameters of {side} are not mapped: {listed}")
        if self.passed:
            gradients = self.max_gradient_diff
            compared = "gradients not compared" if gradients is None else f"of gradients {gradients:.1e}"
            lines.append(
                f"AGREES: {self.parameters_mapped} parameter tensors, largest difference of values "
                f"{self.max_value_diff:.1e}, {compared}"
            )
        return "\n".join(lines)

    def folded(self) -> "Report":
        """The same with one row for each top-level layer (and each block), holding the worst of what is inside."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            first, *rest = row.name.split(".")
            groups.setdefault(f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first, []).append(row)
        rows = [_fold(name, members) for name, members in groups.items()]
        return replace(self, rows=rows)

    def table(self) -> str:
        """One line for each row: name, shapes, parameters, largest differences; `x` marks what diverges."""
        header = ("", "layer", "shape", "reference", "parameters", "values", "gradients")
        cells = [header] + [
            (
                " " if row.values_agree and row.gradients_agree else "x",
                row.name,
                _shape(row.shape),
                "same" if row.shape == row.reference_shape else _shape(row.reference_shape),
                f"{row.parameters:,}" if row.parameters else "-",
                _short(row.value_diff),
                _short(row.gradient_diff),
            )
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
        lines = [
            "  ".join(
                text.ljust(width) if column < 4 else text.rjust(width)
                for column, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; a difference that is not finite becomes None."""
        return {
            "parameters_mapped": self.parameters_mapped,
            "max_value_diff": _finite(self.max_value_diff),
            "max_gradient_diff": _finite(self.max_gradient_diff),
            "passed": self.passed,
            "unmapped_ours": self.unmapped_ours,
            "unmapped_theirs": self.unmapped_theirs,
            "first_divergence": self.first_divergence.name if self.first_divergence else None,
            "rows": [
                {
                    "name": row.name,
                    "shape": list(row.shape),
                    "reference_shape": list(row.reference_shape),
                    "parameters": row.parameters,
                    "value_diff": _finite(row.value_diff),
                    "gradient_diff": _finite(row.gradient_diff),
                    "value_diff_relative": _finite(row.value_diff_relative),
                    "gradient_diff_relative": _finite(row.gradient_diff_relative),
                    "note": row.note,
                }
                for row in self.rows
            ],
        }


def _fold(name: str, members: list[Row]) -> Row:
    last = members[-1]  # a container's own row comes after its parts
    return Row(
        name,
        last.shape,
        last.reference_shape,
        sum(row.parameters for row in members),
        _worst([row.value_diff for row in members]),
        _worst([row.gradient_diff for row in members]),
        _worst([row.value_diff_relative for row in members]),
        _worst([row.gradient_diff_relative for row in members]),
        all(row.values_agree for row in members),
        all(row.gradients_agree for row in members),
        next((row.note for row in members if row.note), ""),
    )


def _worst(differences: Sequence[float | None]) -> Any:
    """The largest that was measured; nan if one is, None if none was."""
    measured = [difference for difference in differences if difference is not None]
    return math.nan if any(map(math.isnan, measured)) else max(measured, default=None)


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.1e}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if shape else "scalar"
