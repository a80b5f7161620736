"""The sources of the book keep its rules."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import mfdnn
import pytest
import yaml

from tests.book import checks

LECTURE = checks.ROOT.parent / "shared" / "lecture" / "topics.yml"


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.__name__)
def test_book(check):
    assert check(checks.ROOT) == []


def test_there_are_pages():
    assert len(list(checks.load(checks.ROOT))) >= 5


@pytest.mark.skipif(not LECTURE.exists(), reason="the lecture's topic list is not here")
def test_map_lists_the_lectures_topics():
    def view(path):
        topics = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return [(t["id"], t["title"]) for t in topics]

    assert view(checks.ROOT / "book/lecture-map.yml") == view(LECTURE)


@pytest.mark.parametrize(("chapter", "count"), [("1", 39), ("2", 46)])
def test_finished_chapters_are_mapped(chapter, count):
    file = checks.ROOT / "book/lecture-map.yml"
    topics = yaml.safe_load(file.read_text(encoding="utf-8"))
    own = [t for t in topics if t["id"].startswith(f"{chapter}.")]
    assert len(own) == count
    assert [t["id"] for t in own if t["page"] == "unwritten"] == []


def test_the_version_is_the_same_everywhere():
    """The setup cells compare the installed one, the tools write the package's own."""
    project = tomllib.loads((checks.ROOT / "pyproject.toml").read_text("utf-8"))
    citation = yaml.safe_load((checks.ROOT / "CITATION.cff").read_text("utf-8"))
    stated = {project["project"]["version"], citation["version"], version("mfdnn")}
    assert stated == {mfdnn.__version__}
    setup = checks.page_tool.setup_cell(checks.ROOT)
    assert f'if "{mfdnn.__version__}" not in' in setup


@pytest.mark.parametrize(
    "name", ["README.md", "CITATION.cff", "pyproject.toml", "CONTRIBUTING.md"]
)
def test_repository_url_is_the_one_of_the_configuration(name):
    url = checks.page_tool.repository_url(checks.ROOT)
    config = yaml.safe_load((checks.ROOT / "_config.yml").read_text(encoding="utf-8"))
    site = config["html"]["baseurl"].rstrip("/")
    text = (checks.ROOT / name).read_text(encoding="utf-8")
    slug = url.removeprefix("https://github.com/")
    for found in re.findall(r"https://github\.com/[\w.-]+/[\w-]+", text):
        assert found.startswith(url), f"{name} names {found}, _config.yml {url}"
    for found in re.findall(r"https://[\w-]+\.github\.io/[\w-]+", text):
        assert found == site, f"{name} names {found}, _config.yml {site}"
    for found in re.findall(r"(?:gh/|/github/)([\w.-]+/[\w.-]+)", text):
        assert found == slug, f"{name} launches {found}, _config.yml {slug}"
