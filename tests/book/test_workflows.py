"""The workflows on GitHub: what may write, what is pinned, what is published."""

import re

import pytest
import yaml

from tests.book.checks import ROOT

FOLDER = ROOT / ".github" / "workflows"
USES = re.compile(r"^\s*(?:- )?uses:\s*(.*)$", re.M)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PUBLISHING = {"pages": "write", "id-token": "write"}


def texts():
    """{file name: text} of all workflows."""
    return {p.name: p.read_text("utf-8") for p in sorted(FOLDER.iterdir())}


def may_write(permissions):
    """Whether a ``permissions`` entry allows more than reading."""
    if isinstance(permissions, dict):
        return bool({*permissions.values()} - {"read", "none"})
    return permissions not in (None, "read-all")


def steps_of(job, action):
    """The steps of a job that use an action."""
    return [s for s in job["steps"] if s.get("uses", "").startswith(f"{action}@")]


def workflow_faults(name, text):
    """What any workflow must not do."""
    flow = yaml.safe_load(text)
    bad = [f"uses {uses}, not a full hash" for uses in USES.findall(text)]
    bad = [b for b in bad if not PINNED.search(b)]
    bad += [
        f"mentions {trigger}"
        for trigger in ("workflow_run", "pull_request_target")
        if trigger in text
    ]
    if flow.get("permissions") != {"contents": "read"}:
        bad.append("does more than read contents by default")
    for key, job in flow["jobs"].items():
        publishes = (name, key) == ("test.yml", "deploy")
        if may_write(job.get("permissions")) and not publishes:
            bad.append(f"job {key} may write")
        for step in steps_of(job, "actions/checkout"):
            if step.get("with", {}).get("persist-credentials") is not False:
                bad.append(f"job {key} keeps its credentials")
        for step in job["steps"]:
            if "${{" in step.get("run", ""):
                bad.append(f"job {key} puts an expression into a script")
    return [f"{name}: {fault}" for fault in bad]


def publishing_faults(text):
    """What must hold for the job that publishes: tested, on main, as it was tested."""
    jobs = yaml.safe_load(text)["jobs"]
    test, deploy = jobs["test"], jobs["deploy"]
    only_main = "github.event_name == 'push' && github.ref == 'refs/heads/main'"
    uploads = steps_of(test, "actions/upload-pages-artifact")
    last = [s.get("run") for s in test["steps"] if "run" in s][-1]
    after = test["steps"].index(uploads[0]) if uploads else -1
    wanted = {
        "needs the tests": deploy.get("needs") in ("test", ["test"]),
        "runs on pushes to main only": deploy.get("if") == only_main,
        "has the rights to publish, no others": deploy["permissions"] == PUBLISHING,
        "ends no other deployment": deploy["concurrency"]
        == {"group": "pages", "cancel-in-progress": False},
        "does nothing but publish": len(deploy["steps"]) == 1
        and steps_of(deploy, "actions/deploy-pages") == deploy["steps"],
        "takes the site that was tested": len(uploads) == 1
        and uploads[0]["with"] == {"path": "_build/html"}
        and uploads[0]["if"] == "github.event_name == 'push'"
        and last == ".ci/run"
        and after == len(test["steps"]) - 1,
        "waits when a test fails": "continue-on-error" not in text,
    }
    return [f"deploy no longer {what}" for what, holds in wanted.items() if not holds]


def faults(files):
    """All complaints about the workflows."""
    bad = [f for name, text in files.items() for f in workflow_faults(name, text)]
    return bad + publishing_faults(files["test.yml"])


def test_workflows_are_safe():
    assert faults(texts()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"checkout@\w{40} # v[\d.]+", "checkout@v6"),
        (r"# v6\.2\.0", "# v6"),
        (r"  push:\n", "  workflow_run:\n    workflows: [test]\n  push:\n"),
        (r"  pull_request:", "  pull_request_target:"),
        (r"(?m)^  contents: read", "  contents: write"),
        (r"(?m)^permissions:\n  contents: read\n", ""),
        (r"    timeout-minutes: 90", "    permissions: write-all"),
        (r"    timeout-minutes: 90", "    permissions: {pages: write}"),
        (r"          persist-credentials: false", "          fetch-depth: 1"),
        (r"    needs: test\n", ""),
        (r" && github\.ref == 'refs/heads/main'", ""),
        (r"    if: github[^\n]*\n    runs-on", "    runs-on"),
        (r"      pages: write", "      pages: write\n      contents: write"),
        (r"      cancel-in-progress: false", "      cancel-in-progress: true"),
        (r"    steps:\n      - id: publish", "    steps:\n      - run: make book\n"
         "      - id: publish"),
        (r"      - if: github", "      - run: make book\n      - if: github"),
        (r"path: _build/html", "path: ."),
        (r"run: \.ci/run", "run: .ci/run\n        continue-on-error: true"),
        (r"run: make \.venv", "run: echo ${{ github.head_ref }}; make .venv"),
    ],
)  # fmt: skip
def test_damaged_workflow_is_rejected(old, new):
    files = texts()
    damaged, count = re.subn(old, new, files["test.yml"], count=1)
    assert count == 1
    assert faults(files | {"test.yml": damaged})


def test_another_workflow_that_writes_is_rejected():
    files = texts()
    rights = "    permissions: {contents: write}\n    timeout-minutes: 60"
    damaged = files["portable.yml"].replace("    timeout-minutes: 60", rights)
    assert faults(files | {"portable.yml": damaged})
