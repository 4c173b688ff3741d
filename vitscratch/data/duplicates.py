"""The same picture twice: byte for byte, or one file under two names."""

from collections import defaultdict
from collections.abc import Sequence

from vitscratch.data.findings import Finding
from vitscratch.data.folders import Entry


def groups_of_identical(digests: Sequence[str]) -> list[list[int]]:
    """Numbers of pictures whose bytes are identical, two or more in a group, in order; "" is like nothing else."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, digest in enumerate(digests):
        if digest:
            groups[digest].append(number)
    return [group for group in groups.values() if len(group) > 1]


def duplicate_findings(
    entries: Sequence[Entry], groups: Sequence[Sequence[int]], class_names: Sequence[str]
) -> list[Finding]:
    """A finding for each group: the worst that can be said of it.

    One file in two splits is bad: the splits share it. A copy in two splits is a warning, as it flatters the result;
    a copy in two classes is a note: one of its labels is wrong.
    """
    findings = []
    for group in groups:
        members = [entries[number] for number in group]
        names = ", ".join(member.name for member in members)
        classes = sorted({class_names[member.label] for member in members})
        splits = sorted({member.split or "" for member in members})
        if len(splits) > 1 and (shared := _shared_file(members)):
            findings.append(Finding("bad", "file in two splits", members[0].name, f"one file, by links: {shared}"))
        elif len(splits) > 1:
            message = f"identical pictures in {' and '.join(splits)}: {names}"
            findings.append(Finding("warning", "duplicate across splits", members[0].name, message))
        if len(classes) > 1:
            message = f"identical pictures in {' and '.join(classes)}: {names}"
            findings.append(Finding("note", "conflicting labels", members[0].name, message))
        elif len(splits) == 1:
            findings.append(Finding("note", "duplicate", members[0].name, f"identical pictures: {names}"))
    return findings


def _shared_file(members: Sequence[Entry]) -> str | None:
    """Names of one file (links resolved, hard links included) that lie in different splits."""
    seen: dict[tuple[int, int], Entry] = {}
    for member in members:
        if member.path is None:
            continue
        status = member.path.stat()
        other = seen.setdefault((status.st_dev, status.st_ino), member)
        if other.split != member.split:
            return f"{other.name}, {member.name}"
    return None
