# SPDX-License-Identifier: GPL-2.0-only
"""Which exception will fail a test, at the moment that it is raised.

Later is too late: on its way out of the test every `with` closes its file, and the process under
test is no longer what the kernel's answer was about. So each frame from where it was raised up to
the test's is asked, by its source, whether something there is going to take it.
"""

import ast
import builtins
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

Raised = tuple[type[BaseException], BaseException, TracebackType]
# What is raised where nothing has failed.
_NO_FAILURE = (StopIteration, StopAsyncIteration, GeneratorExit, KeyboardInterrupt, SystemExit)
# The interpreter itself asks these, and takes what they raise: whoever called them hears of it.
_ASKED_BY_C = ("__getattr__", "__getattribute__", "__getitem__", "__len__", "__iter__", "__next__")
# Context managers that take exceptions, or make others of them (`lab.agent.channel.Channel.use`).
_TAKERS = ("raises", "raises_errno", "suppress", "use")
_DECLARED = ("raises", "suppress")  # which name the types as their arguments
_Block = ast.Try | ast.TryStar | ast.With
_Place = tuple[int, int]  # line and column


@contextmanager
def told(
    test: CodeType, roots: tuple[Path, ...], tell: Callable[[FrameType, Raised], None]
) -> Iterator[None]:
    """In the block, while `test` runs in this thread: `tell` is called when an exception is raised
    that nothing between there and the test's own frame takes, once for each exception.

    Frames of code below `roots` are watched. What was raised elsewhere is told when it comes there.
    """
    seen: list[BaseException] = []

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "exception":
            error = argument[1]
            if error not in seen and _is_fatal(frame, error, test, roots):
                seen.append(error)
                tell(frame, argument)
        return local

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        del event, argument
        if not _is_below(frame.f_code.co_filename, roots):
            return None
        frame.f_trace_lines = False
        return local

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def _is_fatal(
    frame: FrameType, error: BaseException, test: CodeType, roots: tuple[Path, ...]
) -> bool:
    if isinstance(error, _NO_FAILURE) or frame.f_code.co_name in _ASKED_BY_C:
        return False
    walking: FrameType | None = frame
    while walking:
        if _is_below(walking.f_code.co_filename, roots) and takes(walking, error):
            return False
        if walking.f_code is test:
            return True
        walking = walking.f_back
    return False  # the test does not run yet, or any more


@cache
def _is_below(file: str, roots: tuple[Path, ...]) -> bool:
    return any(Path(file).is_relative_to(root) for root in roots)


def takes(frame: FrameType, error: BaseException) -> bool:
    """Whether a handler, or a context manager made for that, is about to take it in this frame."""
    place = _position(frame)
    for block in _around(frame.f_code.co_filename, frame.f_code.co_firstlineno, place):
        if isinstance(block, ast.With):
            items = _entered(block, place)
            if any(_item_takes(item.context_expr, frame, error) for item in items):
                return True
        elif _within(block.body, place) and any(
            not _raises_again(handler)
            and (handler.type is None or _matches(handler.type, frame, error))
            for handler in block.handlers
        ):
            return True
    return False


def _position(frame: FrameType) -> _Place:
    """Where in its file the code begins that a frame runs."""
    line, _, column, _ = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    return line or frame.f_lineno, column or 0


@cache
def _tree(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _around(file: str, first_line: int, place: _Place) -> Iterator[_Block]:
    """The blocks of the function that starts there, around a place in it."""
    tree = _tree(file)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            starts = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if starts == first_line:
                yield from _blocks(node.body, place)


def _blocks(body: list[ast.stmt], place: _Place) -> Iterator[_Block]:
    for statement in body:
        if not _within([statement], place):
            continue
        if isinstance(statement, _Block):
            yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return  # another frame's
        for field in ("body", "orelse", "finalbody"):
            yield from _blocks(getattr(statement, field, []), place)
        for each in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _blocks(each.body, place)


def _within(body: list[ast.stmt], place: _Place) -> bool:
    if not body:
        return False
    first, last = body[0], body[-1]
    end = (last.end_lineno or last.lineno, last.end_col_offset or 0)
    return (first.lineno, first.col_offset) <= place < end


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether whatever it takes goes on: it puts something away, and knows no other way out."""
    last = handler.body[-1]
    ways_out = (ast.Return, ast.Continue, ast.Break)
    return (
        isinstance(last, ast.Raise)
        and last.exc is None
        and not any(isinstance(node, ways_out) for node in ast.walk(handler))
    )


def _entered(block: ast.With, place: _Place) -> list[ast.withitem]:
    """Its items that are entered and not left: all of them in its body, and those before the item
    that is on its way in. What leaves them is the whole statement's code: none is known of then."""
    if _within(block.body, place):
        return block.items
    return [item for item in block.items if _end(item.context_expr) <= place]


def _end(node: ast.expr) -> _Place:
    return (node.end_lineno or node.lineno, node.end_col_offset or 0)


def _item_takes(expression: ast.expr, frame: FrameType, error: BaseException) -> bool:
    if not isinstance(expression, ast.Call):
        return False
    called = expression.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if name not in _TAKERS:
        return False
    if name in _DECLARED:
        return any(_matches(each, frame, error) for each in expression.args)
    return True


def _matches(types: ast.expr, frame: FrameType, error: BaseException) -> bool:
    """Whether an exception is of the types that an expression names; yes where nobody knows."""
    if isinstance(types, ast.Starred):
        types = types.value
    names = {**vars(builtins), **frame.f_globals, **frame.f_locals}
    code = compile(ast.Expression(types), "<types>", "eval")
    try:
        return isinstance(error, eval(code, {}, names))
    except Exception:  # whatever it is: the source is not to be judged here
        return True
