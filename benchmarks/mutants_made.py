"""The mutants of a file: mutmut's operators, one change a mutant (https://github.com/boxed/mutmut).

Left out are what raises and what is logged say (texts, and the conditions that an assert's text stands beside are not),
`__all__`, type annotations and aliases, and changes after which the file is the same program or none. Functions with
decorators, which mutmut passes over for the sake of its trampolines, are in: here a mutant is a whole file.
"""

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

_LOGS, _NAMES = "log", ("log", "__all__")


@dataclass(frozen=True)
class Mutant:
    """`lines`: from … to in the file as it is; `begins`: the statement that they are in; `was`, `became`: what is
    changed; `code`: all of the file.
    """

    file: str
    lines: tuple[int, int]
    begins: int
    was: str
    became: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.lines[0]}: {self.was} → {self.became}"


class _Visitor(MutationVisitor):
    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.texts: set[int] = set()  # of asserts

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Assert) and node.msg is not None:
            self.texts.add(id(node.msg))
        if isinstance(node, cst.FunctionDef):
            return False
        return _is_text(node) or id(node) in self.texts or super()._skip_node_and_children(node)


def _is_text(node: cst.CSTNode) -> bool:
    """What is raised or logged, a list of names, or an alias of types."""
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        return isinstance(node.func.value, cst.Name) and node.func.value.value == _LOGS
    if isinstance(node, cst.Assign):
        target = node.targets[0].target
        name = target.value if isinstance(target, cst.Name) else ""
        types = (
            isinstance(node.value, cst.Subscript | cst.BinaryOperation) and name[:1].isupper() and not name.isupper()
        )
        return name in _NAMES or types
    return isinstance(node, cst.Raise)


def drawn(root: Path, paths: Sequence[str], most: int | None, draw: random.Random) -> tuple[int, list[Mutant]]:
    """How many changes there are in these files (and in those of these folders), and `most` mutants of them, each
    change as likely (None: of all), in the order of their lines.
    """
    files = [file for path in paths for file in (sorted((root / path).rglob("*.py")) or [root / path])]
    opened = [_Opened(root, str(file.relative_to(root))) for file in files]
    places = [(one, number) for one in opened for number in range(len(one.mutations))]
    draw.shuffle(places)
    found: list[Mutant] = []
    for one, number in places:
        if len(found) == most:
            break
        if (mutant := one.mutant(number)) is not None:
            found.append(mutant)
    return len(places), sorted(found, key=lambda mutant: (mutant.file, mutant.lines))


class _Opened:
    """A file and what can be changed in it."""

    def __init__(self, root: Path, file: str):
        self._file, text = file, (root / file).read_text()
        wrapper, visitor = MetadataWrapper(cst.parse_module(text)), _Visitor()
        self._module = wrapper.visit(visitor)
        self.mutations = visitor.mutations
        self._places = wrapper.resolve(PositionProvider)
        tree = ast.parse(text)
        self._statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
        self._seen = {ast.dump(tree)}

    def _begins(self, line: int) -> int:
        return max(node.lineno for node in self._statements if node.lineno <= line <= (node.end_lineno or 0))

    def mutant(self, number: int) -> Mutant | None:
        """None where it is no program, or one that was given before."""
        mutation = self.mutations[number]
        changed = self._module.deep_replace(mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.Module)
        try:
            program = ast.dump(ast.parse(changed.code))
            compile(changed.code, self._file, "exec")
        except (SyntaxError, ValueError):
            return None
        if program in self._seen:
            return None
        self._seen.add(program)
        place = self._places[mutation.original_node]
        was, became = (_shown(each) for each in (mutation.original_node, mutation.mutated_node))
        lines = place.start.line, place.end.line
        return Mutant(self._file, lines, self._begins(lines[0]), *_difference(was, became), changed.code)


def _shown(node: cst.CSTNode) -> str:
    return " ".join(cst.Module([]).code_for_node(node).split())


def _difference(was: str, became: str, around: int = 24, most: int = 100) -> tuple[str, str]:
    """Both without what is the same at their ends, where they are long."""
    if max(len(was), len(became)) <= most:
        return was, became
    shortest = min(len(was), len(became))
    head = next((at for at in range(shortest) if was[at] != became[at]), shortest)
    tail = next((at for at in range(shortest - head) if was[-1 - at] != became[-1 - at]), shortest - head)
    head, tail = max(0, head - around), max(0, tail - around)

    def cut(text: str) -> str:
        middle = text[head : len(text) - tail]
        return f"{'…' if head else ''}{middle[:most]}{'…' if tail or len(middle) > most else ''}"

    return cut(was), cut(became)
