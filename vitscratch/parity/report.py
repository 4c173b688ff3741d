"""What a comparison found, as rows, as a table for people and as JSON."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One layer (or a parameter that belongs to no compared layer) in both models.

    `parameters` counts those that no other row counts, so the column adds up to the model's.
    Differences are absolute maxima over the layer's output and its own parameters (value) and over the
    gradients of both (gradient); relative ones are divided by the largest absolute number of the reference.
    They are `inf` where shapes differ or a side is missing, and `nan` if a number is. `note` says which.
    """

    name: str
    shape: tuple[int, ...]
    reference_shape: tuple[int, ...]
    parameters: int
    value_diff: float
    gradient_diff: float
    value_diff_relative: float
    gradient_diff_relative: float
    note: str = ""


@dataclass(frozen=True)
class Report:
    """All rows of a comparison, in the order in which ours computes them.

    A row passes if each difference is at most `atol`, or at most `rtol` relative to the reference.
    """

    rows: list[Row]
    parameters_mapped: int
    atol: float
    rtol: float
    unmapped_ours: list[str] = field(default_factory=list)
    unmapped_theirs: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def max_value_diff(self) -> float:
        """Largest absolute difference of values; inf or nan if any row's is."""
        return _worst([row.value_diff for row in self.rows])

    @property
    def max_gradient_diff(self) -> float:
        """Largest absolute difference of gradients; inf or nan if any row's is."""
        return _worst([row.gradient_diff for row in self.rows])

    def values_agree(self, row: Row) -> bool:
        """Whether a row's values are within tolerance."""
        return row.shape == row.reference_shape and self._within(row.value_diff, row.value_diff_relative)

    def gradients_agree(self, row: Row) -> bool:
        """Whether a row's gradients are within tolerance."""
        return self._within(row.gradient_diff, row.gradient_diff_relative)

    def _within(self, absolute: float, relative: float) -> bool:
        return absolute <= self.atol or relative <= self.rtol  # False for nan

    @property
    def first_divergence(self) -> Row | None:
        """Where the models first part: the first layer forwards whose values differ; if none does, the first
        backwards (so the last of the rows) whose gradients differ."""
        for row in self.rows:
            if not self.values_agree(row):
                return row
        for row in reversed(self.rows):
            if not self.gradients_agree(row):
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
            what = "values" if not self.values_agree(first) else "gradients"
            difference = first.value_diff if what == "values" else first.gradient_diff
            if first.shape != first.reference_shape:
                what = f"shapes {first.shape} and {first.reference_shape}"
            reason = f"; {first.note}" if first.note else ""
            lines.append(f"DIVERGES first at {first.name}: {what} differ (largest {difference:.1e}{reason})")
        for side, names in (("ours", self.unmapped_ours), ("the reference", self.unmapped_theirs)):
            if names:
                listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                lines.append(f"{len(names)} parameters of {side} are not mapped: {listed}")
        if self.passed:
            lines.append(
                f"AGREES: {self.parameters_mapped} parameter tensors, largest difference of values "
                f"{self.max_value_diff:.1e}, of gradients {self.max_gradient_diff:.1e}"
            )
        return "\n".join(lines)

    def folded(self) -> "Report":
        """The same with one row for each top-level layer (and each block), holding the worst of what is inside."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            first, *rest = row.name.split(".")
            groups.setdefault(f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first, []).append(row)
        rows = [_fold(name, members) for name, members in groups.items()]
        return Report(
            rows, self.parameters_mapped, self.atol, self.rtol, self.unmapped_ours, self.unmapped_theirs, self.complete
        )

    def table(self) -> str:
        """One line for each row: name, shapes, parameters, largest differences; `x` marks what diverges."""
        header = ("", "layer", "shape", "reference", "parameters", "values", "gradients")
        cells = [header] + [
            (
                " " if self.values_agree(row) and self.gradients_agree(row) else "x",
                row.name,
                _shape(row.shape),
                "same" if row.shape == row.reference_shape else _shape(row.reference_shape),
                f"{row.parameters:,}" if row.parameters else "-",
                f"{row.value_diff:.1e}",
                f"{row.gradient_diff:.1e}",
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
        next((row.note for row in members if row.note), ""),
    )


def _worst(differences: list[float]) -> float:
    return math.nan if any(map(math.isnan, differences)) else max(differences, default=math.inf)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) if shape else "scalar"
