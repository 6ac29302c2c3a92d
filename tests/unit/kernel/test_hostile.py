# SPDX-License-Identifier: GPL-2.0-only
"""A series whose paths lead elsewhere: nothing is written there, and the next series is as before.

That git refuses such patches is what the lab relies on, so it is looked at.
"""

from pathlib import Path

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError, LabError
from lab.kernel import modules
from lab.kernel.configure import configure
from lab.kernel.fragment import read
from lab.kernel.repository import Repository
from lab.kernel.series import Series
from lab.kernel.source import Identity, TarballIdentity, identify
from lab.progress import Progress

_MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@b.test>
Date: Thu, 1 Jan 1970 00:00:00 +0000
Subject: [PATCH] {subject}

{subject}
---
diff --git a/{path} b/{path}
new file mode {mode}
--- /dev/null
+++ b/{path}
@@ -0,0 +1 @@
+{content}
\\ No newline at end of file
--
2.39.2

"""


def _patch(path: str, content: str, mode: str = "100644", subject: str = "a file") -> bytes:
    mail = _MAIL.format(path=path, content=content, mode=mode, subject=subject)
    return mail.encode()


@pytest.fixture
def identity(tree: Path, lab: Lab, cache: Cache, progress: Progress) -> Identity:
    assert tree.is_dir()
    found = identify(lab.kernels["ball"].source, lab, cache, progress)  # type: ignore[arg-type]
    assert isinstance(found, TarballIdentity)
    return found


@pytest.fixture
def repository(identity: Identity, tmp_path: Path, cache: Cache) -> Repository:
    """With a tree of its own to be checked out."""
    place = tmp_path / "work"
    (place / "linux").mkdir(parents=True)
    made = Repository.create(place / "git", place / "linux", identity, cache)
    made.check_out()
    assert (place / "linux" / "Kconfig").is_file()
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_patch_is_applied(repository: Repository) -> None:
    """The control: these mails are good ones."""
    commits = repository.apply(Series("s", "s", (_patch("drivers/new.c", "int x;"),)))
    repository.check_out(commits[-1].identity)
    assert (repository.tree / "drivers" / "new.c").read_text() == "int x;"


@pytest.mark.parametrize(
    "path",
    ["../evil", "drivers/../../evil", ".git/hooks/post-checkout", "{absolute}/evil"],
)
def test_a_path_out_of_the_tree_is_refused(
    repository: Repository, elsewhere: Path, path: str
) -> None:
    mail = _patch(path.format(absolute=elsewhere), "evil")
    with pytest.raises(ConfigurationError):
        repository.apply(Series("s", "s", (mail,)))
    assert not list(elsewhere.iterdir())
    assert not (repository.tree.parent / "evil").exists()
    assert not (repository.folder / "hooks").exists()


def test_no_file_goes_through_a_link_of_the_same_series(
    repository: Repository, identity: Identity, cache: Cache, elsewhere: Path
) -> None:
    link = _patch("door", str(elsewhere), mode="120000", subject="a link")
    through = _patch("door/evil", "evil", subject="through it")
    with pytest.raises(LabError):
        repository.apply(Series("s", "s", (link, through)))
    assert not list(elsewhere.iterdir())
    repository.open(identity, cache)
    commits = repository.apply(Series("s", "s", (link,)))
    repository.check_out(commits[-1].identity)
    assert (repository.tree / "door").readlink() == elsewhere
    # and the link goes with the series
    repository.check_out()
    assert not (repository.tree / "door").is_symlink()
    assert elsewhere.is_dir()


def test_a_subject_is_no_path(repository: Repository, elsewhere: Path) -> None:
    """It may hold what it likes: no file is named after it."""
    before = _files(repository.folder.parent)
    subject = f"../../{elsewhere.name}/evil $(touch {elsewhere}/evil)"
    mail = _patch("drivers/new.c", "int x;", subject=subject)
    commits = repository.apply(Series("s", "s", (mail,)))
    assert commits[-1].subject == subject
    assert not list(elsewhere.iterdir())
    assert not any("evil" in path for path in _files(repository.folder.parent) - before)


def test_a_configuration_that_is_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "wishes.config").write_text("CONFIG_PCI=y\n")
    wishes = read(tmp_path / "wishes.config")
    make = ["sh", "-c", f"printf 'CONFIG_PCI=y\\nCONFIG_NAME=\"\\377\"\\n' >{tmp_path}/.config"]
    assert configure(tmp_path, tmp_path, wishes, make) == tmp_path / ".config"


def test_a_module_whose_name_is_no_text_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_bytes(b"kernel/drivers/vfio/\xff.ko:\n")
    with pytest.raises(BuildError, match="the build left no kernel/drivers/vfio/"):
        modules.archive(tmp_path)
