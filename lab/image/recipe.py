# SPDX-License-Identifier: GPL-2.0-only
"""What goes into an image: IMAGE/recipe.yaml, IMAGE/init, and files as they are in IMAGE/root."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lab.cache import hash_of_file
from lab.config import Lab, Model, known
from lab.document import load
from lab.errors import ConfigurationError

FILE = "recipe.yaml"
_UNITS = {"K": 1 << 10, "M": 1 << 20}


class Content(Model):
    """The file. `drop` and `links` are paths in the image without "/" in front."""

    suites: tuple[str, ...] = Field(min_length=1)
    packages: tuple[str, ...] = Field(min_length=1)
    drop: tuple[str, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)
    limit: Annotated[str, Field(pattern=r"^[1-9][0-9]*[KM]$")] = "8M"


@dataclass(frozen=True)
class Recipe:
    """A recipe with the files beside it."""

    folder: Path
    content: Content

    @property
    def limit(self) -> int:
        """Bytes that the finished initramfs may have."""
        return int(self.content.limit[:-1]) * _UNITS[self.content.limit[-1]]

    @property
    def init(self) -> Path:
        return self.folder / "init"

    def files(self) -> dict[str, Path]:
        """Path in the image to file in the recipe's folder."""
        root = self.folder / "root"
        found = {str(p.relative_to(root)): p for p in sorted(root.rglob("*")) if p.is_file()}
        return {"init": self.init, **found}

    def inputs(self) -> dict[str, object]:
        """What of the recipe decides the image's bits."""
        files = {name: hash_of_file(file) for name, file in self.files().items()}
        return {"content": self.content.model_dump(mode="json"), "files": files}

    def drops(self, path: str) -> bool:
        """Whether a path, or a folder above it, is not wanted."""
        return any(path == gone or path.startswith(f"{gone}/") for gone in self.content.drop)


def read(folder: Path, lab: Lab) -> Recipe:
    """Read a recipe. Raises ConfigurationError with file, line and what was expected."""
    document = load(folder / FILE)
    try:
        content = Content.model_validate(document.content)
    except ValidationError as invalid:
        raise document.invalid(invalid) from None
    for index, suite in enumerate(content.suites):
        try:
            known("suite", suite, lab.debian.suites)
        except ConfigurationError as error:
            raise document.error(("suites", index), error.message) from None
    recipe = Recipe(folder, content)
    if not recipe.init.is_file():
        raise ConfigurationError(f"{recipe.init} is missing; expected the image's first program")
    return recipe
