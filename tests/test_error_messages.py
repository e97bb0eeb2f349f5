"""Error messages and warnings follow one form: they are parts of longer lines, so no full stop ends them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "metav").rglob("*.py"))


def endings(node: ast.expr) -> Iterator[ast.Constant]:
    """Yield the last literal pieces of a text, one for each branch of a condition; none where a value comes last."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node
    elif isinstance(node, ast.JoinedStr) and node.values:
        last = node.values[-1]
        yield from endings(last.value if isinstance(last, ast.FormattedValue) and last.conversion < 0 else last)
    elif isinstance(node, ast.BinOp):
        yield from endings(node.right)
    elif isinstance(node, ast.IfExp):
        yield from endings(node.body)
        yield from endings(node.orelse)


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def messages(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the arguments of every error that is made and every warning that is given, and texts called a message."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (
            name_of(node).endswith(("Error", "Exception")) or name_of(node) in ("warn", "warn_user")
        ):
            yield from node.args
            yield from (keyword.value for keyword in node.keywords)
        elif isinstance(node, ast.Assign) and any(ast.unparse(target) == "message" for target in node.targets):
            yield node.value


def with_full_stop(source: str) -> list[str]:
    found = [piece for message in messages(ast.parse(source)) for piece in endings(message)]
    return [f"line {piece.lineno}: ...{piece.value[-60:]}" for piece in found if piece.value.rstrip().endswith(".")]


@pytest.mark.parametrize("module", MODULES)
def test_no_error_message_ends_with_a_full_stop(module):
    assert not with_full_stop((ROOT / module).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        'raise InputError("no.")',
        'raise errors.InputError(f"{name} is wrong.")',
        'raise InputError("wrong" + "; do this.")',
        'raise InputError("one" if found else "two.")',
        """raise InputError(f"{name}{remedy if remedy else 'none.'}")""",
        'raise SuspectError("failed", f"{name} failed.") from error',
        'warnings.warn(f"{name} is slow.", stacklevel=2)',
        'warn_user(f"{name} is slow.")',
        'def broken():\n    return InputError("no.")',
        'message = "no."\nraise InputError(message)',
    ],
)
def test_a_full_stop_is_found_wherever_it_ends_a_message(source):
    assert with_full_stop(source)


@pytest.mark.parametrize(
    "source",
    ['raise InputError(f"within 0..{most}")', 'raise InputError("one. Two")', "raise", "raise InputError(text)"],
)
def test_other_messages_pass(source):
    assert not with_full_stop(source)
