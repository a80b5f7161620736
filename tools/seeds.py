"""Does a page hold for other random numbers? Executes it with all seeds shifted.

usage: seeds.py PAGE [PAGE ...] [--draws 20] [--jobs 1] [--cells 5,8]

Draw k = 1, ..., adds 1000 k to every seed of every random generator (shifted.py).
A cell may raise in at most one of 20 draws. An assertion that fails is noted
and its cell goes on, so that all are seen; a cell that raises otherwise ends
there, and the next one follows. A NameError after an earlier failure is counted
apart. A cell that needs a particular draw says why in its metadata, in at least
20 characters: `draw: "why"`. With --cells only these cells are executed, and
the earlier ones whose names they need: for trying a mended cell quickly.
"""

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reading
import replay
from shifted import shift_generators

STEP = 1000  # from the seeds of one draw to those of the next
ALLOWED = 1 / 20  # share of the draws in which a cell may raise
REASON = 20  # characters that an excuse has at least


class Noted(ast.NodeTransformer):
    """Asserts of a cell, outside functions and try: noted instead of raised."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Call ``__note__(line)`` where the assertion fails."""
        note = ast.parse(f"__note__({node.lineno})").body[0]
        kind = ast.Name("AssertionError", ast.Load())
        caught = ast.ExceptHandler(kind, None, [note])
        guarded = ast.Try([node], [caught], [], [])
        return ast.fix_missing_locations(ast.copy_location(guarded, node))

    def leave(self, node: ast.AST) -> ast.AST:
        """Do not look inside."""
        return node

    visit_FunctionDef = visit_ClassDef = visit_Lambda = visit_Try = leave  # noqa: N815


def play_on(path: Path, root: Path, shift: int, only: Sequence[int]) -> replay.Outcome:
    """Execute a page in this process with shifted seeds; stop at nothing."""
    outcome = replay.Outcome()
    cells = replay.chosen_cells(replay.read(path, root), only)
    shift_generators(shift)
    session = replay.Session(path.parent)
    noted: list[int] = []
    session.shell.ast_transformers.append(Noted())
    session.shell.user_ns["__note__"] = noted.append
    for number, cell in cells:
        outcome.cells += 1
        failure = session.run(cell, number)
        lines = reading.source_of(cell).splitlines()
        for line in dict.fromkeys(noted):
            text = lines[line - 1].strip()
            head = replay.code_lines(cell)
            kind = "AssertionError"
            outcome.failures.append(replay.Failure(number, head, text, kind, kind))
        noted.clear()
        if failure:
            outcome.failures.append(failure)
    return outcome


def report(
    cells: list[Any], outcomes: list[replay.Outcome], shown: Sequence[int]
) -> tuple[list[str], bool]:
    """Lines for a person about the cells ``shown``, and whether these pass."""
    lines, passes = [], True
    allowed = ALLOWED * len(outcomes)
    for number in shown:
        cell = cells[number]
        where: Counter[str] = Counter()
        draws = 0
        for outcome in outcomes:
            own = [f for f in outcome.own_failures if f.cell == number]
            draws += bool(own)
            texts = dict.fromkeys(f"{f.error}  at: {f.line}" for f in own)
            where.update(list(texts))
        if not draws:
            continue
        excused = len(str(cell["metadata"].get("draw", ""))) >= REASON
        state = "" if draws <= allowed else "  TOO OFTEN"
        if excused:
            state = f"  excused: {cell['metadata']['draw']}"
        passes &= excused or draws <= allowed
        head = f"cell {number} ({replay.code_lines(cell)})"
        lines.append(f"  {head} raises in {draws} of {len(outcomes)}{state}")
        lines += [f"    {count:3d} x {text}" for text, count in where.most_common()]
    lost = {f.cell for o in outcomes for f in o.failures if f not in o.own_failures}
    if lost:
        lines.append(f"  missed a name of a cell that had raised: {sorted(lost)}")
    return lines, passes


def examine(
    path: Path,
    draws: int,
    jobs: int = 1,
    only: Sequence[int] = (),
    root: Path = replay.pages.ROOT,
) -> tuple[list[str], bool]:
    """Execute a page ``draws`` times; the report, and whether the page passes."""
    cells = reading.code_cells(replay.read(path, root))
    shown = only or range(len(cells))

    def draw(k: int) -> replay.Outcome:
        return replay.in_child(play_on, path.resolve(), root, STEP * k, only)

    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(draw, range(1, draws + 1)))
    lines, passes = report(cells, outcomes, shown)
    seconds = sum(o.seconds for o in outcomes) / draws
    verdict = "passes" if passes else "FAILS"
    head = f"{verdict}: {draws} draws, {seconds:.0f} s CPU each"
    return [head, *lines], passes


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", nargs="+")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1)
    parser.add_argument("--cells", type=replay.numbers, default=[])
    args = parser.parse_args()
    failed = False
    for name in args.page:
        try:
            lines, passes = examine(
                replay.find(name), args.draws, args.jobs, args.cells
            )
        except replay.ReplayError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            continue
        failed |= not passes
        print(f"{name}: ", end="")
        print("\n".join(lines), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
