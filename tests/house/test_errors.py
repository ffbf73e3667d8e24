"""``core/errors.py`` begins with the tree of its classes, which is complete and right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from core import errors

CLASSES = [kind for kind in vars(errors).values() if inspect.isclass(kind) and kind.__module__ == errors.__name__]


def drawing() -> list[str]:
    """Return the lines of the tree in the module's docstring."""
    found = re.search(r"^::\n\n((?:    .*\n)+)", inspect.cleandoc(errors.__doc__ or ""), re.MULTILINE)
    assert found is not None, "core/errors.py has no tree in its docstring"
    return [line.removeprefix("    ") for line in found[1].splitlines()]


def branch(kind: type) -> Iterator[str]:
    """Yield the lines of ``kind`` and of the classes below it, in the order of their definition."""
    further = [base.__name__ for base in kind.__bases__[1:]]
    yield kind.__name__ + (f" (and {', '.join(further)})" if further else "")
    below = [other for other in CLASSES if other.__bases__[0] is kind]
    for other in below:
        last = other is below[-1]
        first, *rest = branch(other)
        yield ("`-- " if last else "|-- ") + first
        yield from (("    " if last else "|   ") + line for line in rest)


def test_the_tree_is_that_of_the_classes() -> None:
    assert drawing() == list(branch(errors.RouteMQError))


def test_every_class_is_in_the_tree() -> None:
    assert sorted(re.sub(r"^\W*| .*$", "", line) for line in drawing()) == sorted(kind.__name__ for kind in CLASSES)


def test_every_class_says_in_a_sentence_what_happened() -> None:
    for kind in CLASSES:
        said = inspect.cleandoc(kind.__dict__.get("__doc__") or "").partition("\n")[0]
        assert re.fullmatch(r"[A-Z].*\.", said), f"{kind.__name__} says {said!r}"
