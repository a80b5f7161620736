"""The errata: complete entries, in the lecture's order, on what the book shows."""

import copy
import functools
import re

import pytest
import yaml

from tests.book import checks

KEYS = {"topic", "title", "kind", "says", "right", "section"}
BOOK = checks.ROOT / "book"


@functools.cache
def stored(name):
    return yaml.safe_load((BOOK / name).read_text(encoding="utf-8"))


def errata():
    """The entries, to be damaged."""
    return copy.deepcopy(stored("errata.yml"))


@functools.cache
def labels():
    """The labels of all sections of the book's pages."""
    pages = (p.read_text(encoding="utf-8") for p in BOOK.glob("*/*.md"))
    return {s for page in pages for s in re.findall(r"^\((sec-[\w-]+)\)=$", page, re.M)}


def problems(entries):
    """What is wrong with a list of errata."""
    written = [t["id"] for t in stored("lecture-map.yml") if t["page"] != "unwritten"]
    sections, bad, last = labels(), [], 0
    for entry in entries:
        name = f"{entry.get('topic')}: {entry.get('title')}"
        texts = [entry.get(key) for key in KEYS]
        if set(entry) != KEYS or not all(isinstance(t, str) and t for t in texts):
            bad.append(f"{name}: needs the texts {sorted(KEYS)} and no others")
            continue
        if entry["kind"] not in ("error", "precision"):
            bad.append(f"{name}: kind is error or precision")
        if entry["section"] not in sections:
            bad.append(f"{name}: no section {entry['section']}")
        if entry["topic"] not in written:
            bad.append(f"{name}: no topic that the book has")
            continue
        if written.index(entry["topic"]) < last:
            bad.append(f"{name}: not in the lecture's order")
        last = written.index(entry["topic"])
    return bad


def test_errata():
    entries = errata()
    assert {e["kind"] for e in entries} == {"error", "precision"}
    assert problems(entries) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, "") for key in sorted(KEYS)]
    + [("kind", "quibble"), ("topic", "1.40"), ("section", "sec-nowhere"), ("x", "y")],
)
def test_damaged_entry_is_found(key, value):
    entries = errata()
    entries[0][key] = value
    assert len(problems(entries)) == 1


@pytest.mark.parametrize("key", sorted(KEYS))
def test_missing_field_is_found(key):
    entries = errata()
    del entries[0][key]
    assert len(problems(entries)) == 1


def test_wrong_order_is_found():
    assert problems(errata()[::-1])
