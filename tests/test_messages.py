"""docs/messages.md has what the core can say at WARNING and above, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from daemon.journal import message_id

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/messages.md"
LOUD = {"log.warning", "log.error", "log.critical", "log.exception"}


def said(tree: ast.AST) -> set[str]:
    """The texts of all loud calls of `log`; a variable is what was last assigned to that name above.

    Raises:
        TypeError: a text is put together as it is said, so no page can have it.
    """
    texts, named = set(), {}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Call)]
    for node in sorted(nodes, key=lambda each: each.lineno):
        if isinstance(node, ast.Assign):
            named[ast.unparse(node.targets[0])] = node.value
        elif ast.unparse(node.func) in LOUD:
            text = named.get(ast.unparse(node.args[0]), node.args[0])
            if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                raise TypeError(f"line {node.lineno}: {ast.unparse(node)}")
            texts.add(text.value)
    return texts


def listed() -> list[str]:
    rows = re.findall(
        r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \| `([0-9a-f]{32})` \|$", PAGE.read_text(), re.MULTILINE
    )
    assert all(message_id(text) == id_ for text, id_ in rows)
    return [text for text, _ in rows]


def test_every_message_that_asks_for_attention_has_its_cause_and_remedy_and_no_other_has() -> None:
    paths = [path for package in ("daemon", "drivers") for path in (ROOT / package).rglob("*.py")]
    texts = {text for path in paths for text in said(ast.parse(path.read_text()))}
    assert len(texts) > 50
    assert set(listed()) == texts


def test_no_message_is_explained_twice() -> None:
    assert len(listed()) == len(set(listed()))


def test_a_text_in_a_variable_is_found_and_one_put_together_is_refused() -> None:
    assert said(ast.parse("text = 'a %s'\nlog.warning(text, 1)\nlog.info('b')\nother.error('c')")) == {"a %s"}
    with pytest.raises(TypeError, match="line 1"):
        said(ast.parse("log.error(f'{x}')"))
