# SPDX-License-Identifier: GPL-2.0-only
"""A YAML file whose every value knows its line, so that an error can point at it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lab.errors import ConfigurationError

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """The content of a YAML file, and the line of each place in it."""

    file: Path
    content: Any
    lines: dict[Place, int]

    def error(self, place: Place, message: str) -> ConfigurationError:
        """An error at a place: file, line, the place's name, and what is wrong there.

        Steps of `place` that the file does not have (a validator's own) are passed over.
        """
        seen: Place = ()
        for step in place:
            if (*seen, step) in self.lines:
                seen = (*seen, step)
        name = ".".join(str(step) for step in seen)
        missing = message == "Field required"
        if missing:
            name = ".".join(filter(None, (name, str(place[-1]))))
            message = "is missing"
        where = ": ".join(filter(None, (f"{self.file}:{self.lines.get(seen, 1)}", name)))
        return ConfigurationError(f"{where}: {message}")

    def invalid(
        self, found: ValidationError, slip: Callable[[Place], str] = lambda _: ""
    ) -> ConfigurationError:
        """The same for the first thing that a model does not take, in words for who writes YAML.

        `slip` says more of a key that there is not, by its place.
        """
        # With a slip of the finger in a key the right one is missing, too.
        first = min(found.errors(), key=lambda each: each["type"] != _NO_SUCH_KEY)
        message = _EXPECTED.get(first["type"], first["msg"])
        if first["type"] == _NO_SUCH_KEY:
            message += slip(first["loc"])
        return self.error(first["loc"], message)


_NO_SUCH_KEY = "extra_forbidden"

# Where pydantic speaks of Python, and not of YAML.
_EXPECTED = {
    _NO_SUCH_KEY: "no such key",
    "model_type": "expected keys and values",
    "dict_type": "expected keys and values",
    "tuple_type": "expected a list",
    "string_type": "expected text: a number goes into quotes",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "path_type": "expected a path",
}


def load(file: Path) -> Document:
    """Read a YAML file. Raises ConfigurationError for bad YAML and for a key given twice."""
    lines: dict[Place, int] = {(): 1}
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _walk(file, root, (), lines)
        return Document(file, yaml.safe_load(text), lines)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{file}:{line}: not YAML: it is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{file}:{line}: not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise ConfigurationError(f"{file}:{line}: not YAML: {error.reason}") from error


def _walk(
    file: Path,
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    above: tuple[yaml.Node, ...] = (),
) -> None:
    line = node.start_mark.line + 1
    if node in above:
        raise ConfigurationError(f"{file}:{line}: not YAML: an alias stands within its own anchor")
    lines.setdefault(place, line)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(file, child, (*place, index), lines, (*above, node))
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            here = (*place, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                name = ".".join(str(step) for step in here)
                raise ConfigurationError(
                    f"{file}:{line}: {name}: given twice; the first stands in line {lines[here]}"
                )
            lines[here] = line
            _walk(file, child, here, lines, (*above, node))
