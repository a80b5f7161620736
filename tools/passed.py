"""Records of what has passed, by the content that it depends on.

They lie in an ignored folder, ``_build/checked``, and name no time: what is
recorded holds as long as the content is the same, and again when it is again the
same. To lose them costs time and nothing else.
"""

import json
import os
from pathlib import Path


class Passed:
    """The records under a repository's root."""

    def __init__(self, root):
        """Find them; the folder is made with the first one."""
        self.folder = Path(root) / "_build" / "checked"

    def __contains__(self, key):
        """Whether what this key stands for has passed."""
        return (self.folder / f"{key}.json").exists()

    def note(self, key, **about):
        """Record that it passed; ``about`` tells a person what it was."""
        self.store(key, about)

    def load(self, name):
        """What is recorded under a name, or nothing."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def store(self, name, value):
        """Record something under a name, in one step."""
        target = self.folder / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(f".{os.getpid()}.part")
        draft.write_text(json.dumps(value), encoding="utf-8")
        os.replace(draft, target)
