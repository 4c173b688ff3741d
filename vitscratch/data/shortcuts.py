"""Shortcuts: can the class be told from how a file was written, without a look at the picture?

If every generated picture is a PNG and every real one a JPEG, a model learns to see the traces of JPEG, reaches 100 %
and knows nothing of generated pictures. So each property of the files is tried on its own: a small decision tree
predicts the class from it, and is judged on files that it has not seen.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from vitscratch.data.findings import Finding
from vitscratch.data.folders import Entry
from vitscratch.data.inspect import Inspection

SAMPLE = 4000
"""About so many pictures are looked at, as many of each class as possible."""

LEAST = 8
"""A class with fewer pictures is left out: by `_needed`, not even a property that gets all of them right counts."""

_FOLDS = 5
_LEAF = 5  # pictures of a leaf at least: so that a small set is not learned by heart, value by value
_SHOWN = 3  # classes for which a message says what is typical
_TOGETHER = "all but file size, together"
_ANEW = "Save all pictures anew in the same way: one format, one quality"
_SOURCES = (
    "A model cannot read it, but it says that the classes come from different sources: look for what else differs"
)


@dataclass(frozen=True)
class Shortcut:
    """How well one property of the files tells the class.

    Args:
        feature: the property.
        accuracy: balanced (the mean over classes of the share that is right), cross-validated. chance: 1 / classes.
        needed: the accuracy from which on it counts as better than chance.
        pictures: how many were looked at.
        severity: "warning": better than chance; "note": likewise, but the content of the pictures may be the reason;
            None: no better than chance.
        typical: class -> its most common value, or for file sizes the median.
    """

    feature: str
    accuracy: float
    chance: float
    needed: float
    pictures: int
    severity: Literal["warning", "note"] | None
    typical: dict[str, str]

    def numbers(self) -> str:
        """The accuracy beside that of chance."""
        return f"{self.accuracy:.1%} balanced accuracy (chance {self.chance:.1%})"

    def classes(self) -> str:
        """What is typical of a few classes, those first that differ."""
        differing = {value: name for name, value in reversed(self.typical.items())}
        names = [*reversed(differing.values()), *self.typical]
        shown = [f"{name} {self.typical[name]}" for name in list(dict.fromkeys(names))[:_SHOWN]]
        return ", ".join(shown) + " and so on" * (len(self.typical) > _SHOWN)


@dataclass(frozen=True)
class _Feature:
    """A property of files.

    Args:
        value: numbers, texts or tuples that can be ordered; None for a file that has no such property.
        shown: a value as a person would say it. remedy: what to do if it tells the class.
    """

    name: str
    value: Callable[[Inspection], Any]
    shown: Callable[[Any], str]
    remedy: str
    severity: Literal["warning", "note"] = "warning"


def _jpeg(found: Inspection, value: Any) -> Any:
    """The value for a JPEG that has one: that others have none is what "file format" and "colour mode" say."""
    return value if found.traces.quantisation and value != "" else None


def _quality(sums: tuple[int, ...]) -> str:
    """From 1 to 100, by the tables of ITU T.81, annex K, as libjpeg scales them; other encoders have others."""
    percent = max(1, 100 * sums[0] / 3688)  # of the sum of annex K's table, which quality 50 takes as it is
    return f"about quality {round(100 - percent / 2 if percent <= 100 else 5000 / percent)}"


def _present(what: str) -> Callable[[bool], str]:
    return lambda value: what if value else f"no {what}"


_FEATURES = (
    _Feature("file format", lambda f: "JPEG" if f.form == "MPO" else f.form, str, _ANEW),
    _Feature("JPEG quantisation", lambda f: _jpeg(f, f.traces.quantisation), _quality, _ANEW),
    _Feature("JPEG chroma subsampling", lambda f: _jpeg(f, f.traces.subsampling), str, _ANEW),
    _Feature("progressive JPEG", lambda f: _jpeg(f, f.traces.progressive), _present("progressive"), _ANEW),
    _Feature("width", lambda f: f.size[0], "{:,} px".format, "Cut all pictures to one size; resizing leaves traces"),
    _Feature("height", lambda f: f.size[1], "{:,} px".format, "Cut all pictures to one size; resizing leaves traces"),
    _Feature("colour mode", lambda f: f.mode, str, "Convert all pictures to one mode, or leave the odd ones out"),
    _Feature("EXIF data", lambda f: f.traces.exif, _present("EXIF"), _SOURCES),
    _Feature("colour profile", lambda f: f.traces.colour_profile, _present("profile"), _SOURCES),
    _Feature("texts in the header", lambda f: f.traces.texts, "{} texts".format, _SOURCES),
    _Feature(
        "file size",
        lambda f: f.traces.file_size,
        "{:,} bytes".format,
        "That may be content: smooth pictures compress well. If it is not, save all of them with one quality",
        "note",
    ),
)


def find_shortcuts(
    entries: Sequence[Entry], inspections: Sequence[Inspection], class_names: Sequence[str], seed: int = 0
) -> tuple[Shortcut, ...]:
    """Try to tell the class of the training pictures (of an undivided set: of all) by each property of their files.

    Properties that are the same everywhere are left out. The last row takes all but the file size together.

    Args:
        entries, inspections: of the good pictures. seed: of the sample and of the folds.
    """
    labels, found = _sample(entries, inspections, seed)
    columns = [[feature.value(inspection) for inspection in found] for feature in _FEATURES]
    shortcuts, varying = [], []
    for feature, values in zip(_FEATURES, columns, strict=True):
        having = [number for number, value in enumerate(values) if value is not None]
        kept = _of_large_classes([labels[number] for number in having])
        chosen = [having[number] for number in kept]
        own_labels, own_values = [labels[n] for n in chosen], [values[n] for n in chosen]
        if len(set(own_values)) < 2 or len(set(own_labels)) < 2:
            continue
        accuracy = _accuracy([own_values], own_labels, seed)
        typical = _typical(feature, own_labels, own_values, class_names)
        shortcuts.append(_judged(feature.name, accuracy, own_labels, feature.severity, typical))
        if feature.severity == "warning":
            varying.append(values)
    if len(varying) > 1:
        shortcuts.append(_judged(_TOGETHER, _accuracy(varying, labels, seed), labels, "warning", {}))
    return tuple(shortcuts)


def _sample(
    entries: Sequence[Entry], inspections: Sequence[Inspection], seed: int
) -> tuple[list[int], list[Inspection]]:
    """Labels and inspections of some training pictures, classes with too few left out; a copy is no other picture."""
    by_class: dict[int, dict[str, Inspection]] = defaultdict(dict)
    for entry, inspection in zip(entries, inspections, strict=True):
        if entry.split in ("train", None):
            by_class[entry.label].setdefault(inspection.digest, inspection)
    by_class = {label: found for label, found in sorted(by_class.items()) if len(found) >= LEAST}
    share = max(4 * LEAST, SAMPLE // max(1, len(by_class)))
    generator = random.Random(seed)
    drawn = {label: generator.sample(list(found.values()), min(share, len(found))) for label, found in by_class.items()}
    return [label for label, some in drawn.items() for _ in some], [one for some in drawn.values() for one in some]


def _of_large_classes(labels: Sequence[int]) -> list[int]:
    """Numbers of the pictures of classes that are large enough."""
    counts = Counter(labels)
    return [number for number, label in enumerate(labels) if counts[label] >= LEAST]


def _accuracy(columns: Sequence[Sequence[Hashable]], labels: Sequence[int], seed: int) -> float:
    """Balanced accuracy of a small tree on files that it was not fitted to. Only the order of values counts."""
    import numpy as np
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    table = np.empty((len(labels), len(columns)))
    for place, values in enumerate(columns):
        order = sorted({value for value in values if value is not None})  # type: ignore[type-var]  # see _Feature
        codes: dict[Hashable, int] = {value: code for code, value in enumerate(order)} | {None: -1}
        table[:, place] = [codes[value] for value in values]
    # As many leaves as telling all classes apart takes, and a few more; equal weights, as balanced accuracy has them.
    leaves = max(8, 2 * len(set(labels)))
    tree = DecisionTreeClassifier(
        max_leaf_nodes=leaves, min_samples_leaf=_LEAF, class_weight="balanced", random_state=seed
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    return float(balanced_accuracy_score(labels, cross_val_predict(tree, table, labels, cv=folds)))


def _needed(labels: Sequence[int]) -> float:
    """The balanced accuracy from which on a property beats chance: by four standard errors, and by 5 points.

    If a property says nothing, the share that is right of class c is a binomial share q_c of its n_c pictures, where
    the q_c sum to 1, and the variance of the mean over k classes is at most (1 - 1/k) / k^2 times the mean of 1/n_c
    (classes of one size). Four errors, because some ten properties are tried on every set, because the folds'
    predictions depend on each other a little, and because an alarm without a fire teaches to ignore alarms. Among
    10 and 10 pictures only a property that gets at least 19 right is reported. The 5 points are for large sets, in
    which every small difference is beyond chance, but of no use to a model.
    """
    counts = Counter(labels).values()
    classes = len(counts)
    error = sqrt((1 - 1 / classes) * sum(1 / count for count in counts) / classes) / classes
    return 1 / classes + max(0.05, 4 * error)


def _judged(
    feature: str,
    accuracy: float,
    labels: Sequence[int],
    severity: Literal["warning", "note"],
    typical: dict[str, str],
) -> Shortcut:
    needed, chance = _needed(labels), 1 / len(set(labels))
    counts = severity if accuracy >= needed else None
    return Shortcut(feature, accuracy, chance, needed, len(labels), counts, typical)


def _typical(
    feature: _Feature, labels: Sequence[int], values: Sequence[Any], class_names: Sequence[str]
) -> dict[str, str]:
    """What to say of each class."""
    by_class: dict[int, list[Any]] = defaultdict(list)
    for label, value in zip(labels, values, strict=True):
        by_class[label].append(value)
    return {class_names[label]: _middle(feature, own) for label, own in sorted(by_class.items())}


def _middle(feature: _Feature, values: Sequence[Any]) -> str:
    if feature.name == "file size":  # hardly any two are the same
        return f"{feature.shown(sorted(values)[len(values) // 2])} in the middle"
    value, number = Counter(map(feature.shown, values)).most_common(1)[0]
    return f"{value} ({number / len(values):.0%})"


def shortcut_findings(shortcuts: Sequence[Shortcut]) -> list[Finding]:
    """A warning, or a note, for each property that beats chance; all together only where none does so alone."""
    remedies = {feature.name: feature.remedy for feature in _FEATURES}
    findings = []
    for shortcut in _worst_first(shortcuts):
        if shortcut.severity is None:
            continue
        typical = f": {shortcut.classes()}" if shortcut.typical else ""
        message = (
            f"tells the class with {shortcut.numbers()}, cross-validated on {shortcut.pictures:,} pictures{typical}. "
            f"{remedies.get(shortcut.feature, _ANEW)}"
        )
        kind = "shortcut" if shortcut.severity == "warning" else "shortcut, or content"
        findings.append(Finding(shortcut.severity, kind, shortcut.feature, message))
    return findings


def shortcut_line(shortcuts: Sequence[Shortcut], data: str) -> str | None:
    """The warnings in a line, for the start of a training; None if there is none."""
    warned = [one for one in _worst_first(shortcuts) if one.severity == "warning"]
    if not warned:
        return None
    worst, *others = warned
    details = f": {worst.classes()}" if worst.typical else ""
    also = f"; so {'does' if len(others) == 1 else 'do'} " * bool(others)
    also += ", ".join(f"{one.feature} ({one.accuracy:.1%})" for one in others)
    return (
        f"shortcut: without a look at the pictures, {worst.feature} tells the class with {worst.numbers()}{details}"
        f"{also}. A model may learn that in place of what is shown; `vitscratch data check {data}` says what to do"
    )


def _worst_first(shortcuts: Sequence[Shortcut]) -> list[Shortcut]:
    """Those to be told of, all together only where none is a warning alone."""
    alone = [one for one in shortcuts if one.feature != _TOGETHER]
    told = alone if any(one.severity == "warning" for one in alone) else shortcuts
    return sorted(told, key=lambda one: -one.accuracy)
