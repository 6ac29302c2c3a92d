# SPDX-License-Identifier: GPL-2.0-only
"""File and line behind each address, of a program that is laid out as a kernel's tree is."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from lab.errors import InfrastructureError
from lab.splats import find, symbols
from lab.splats.symbols import Symbols

MAIN = """\
int start_kernel(void);
static int twice(int x)
{
	return x + x;
}
int caller(int x)
{
	twice(x);
	return x + 1;
}
int main(void) { return caller(1); }
int start_kernel(void) { return 0; }
"""
OTHER = """\
static inline __attribute__((always_inline)) int inner(int x)
{
	return *(volatile int *)(long)x;
}
static int twice(int x) { int a = x * 3, b = a * 5; return inner(a) + inner(b) * 7 + x; }
int (*keep)(int) = twice;
"""


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for name, text in {"init/main.c": MAIN, "drivers/other.c": OTHER}.items():
        (tree / name).parent.mkdir()
        (tree / name).write_text(text)
    argv = ["gcc", "-g", "-O0", "-no-pie", "-o", "vmlinux", "init/main.c", "drivers/other.c"]
    subprocess.run(argv, cwd=tree, check=True)
    return tree / "vmlinux"


def size_of(vmlinux: Path, function: str) -> list[int]:
    lines = subprocess.run(["nm", "-S", vmlinux], capture_output=True, text=True, check=True).stdout
    words = (line.split() for line in lines.splitlines())
    return [int(word[1], 16) for word in words if word[-1] == function]


def test_each_place_gets_its_file_and_line(vmlinux: Path) -> None:
    size = size_of(vmlinux, "caller")[0]
    text = f"[    1.0] Call Trace:\n[    1.0]  caller+0x10/{size:#x}\n[    1.0]  gone+0x1/0x2"
    assert Symbols(vmlinux).decode(text).splitlines() == [
        "[    1.0] Call Trace:",
        f"[    1.0]  caller+0x10/{size:#x} (init/main.c:8)",
        "[    1.0]  gone+0x1/0x2",
    ]


def test_a_return_address_is_the_calls_line_and_an_instruction_pointer_its_own(
    vmlinux: Path,
) -> None:
    dump = subprocess.run(["objdump", "-d", "--no-show-raw-insn", vmlinux],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    code = dump.partition("<caller>:\n")[2].partition("\n\n")[0].splitlines()
    start = int(code[0].split(":")[0], 16)
    call = next(number for number, line in enumerate(code) if "call" in line)
    behind = int(code[call + 1].split(":")[0], 16) - start
    place = f"caller+{behind:#x}/{size_of(vmlinux, 'caller')[0]:#x}"
    decoded = Symbols(vmlinux).decode(f" {place}\nRIP: 0010:{place}")
    assert decoded == f" {place} (init/main.c:8)\nRIP: 0010:{place} (init/main.c:9)"


def test_of_two_functions_of_one_name_it_is_the_one_of_that_size(vmlinux: Path) -> None:
    sizes = size_of(vmlinux, "twice")
    assert len(set(sizes)) == 2
    found = {Symbols(vmlinux).decode(f" twice+0x4/{size:#x}") for size in sizes}
    assert any("(init/main.c:" in each for each in found)
    assert any("(drivers/other.c:" in each for each in found)
    assert Symbols(vmlinux).decode(" twice+0x4/0xfff") == " twice+0x4/0xfff"


def test_what_was_put_into_another_shows_both_lines(vmlinux: Path) -> None:
    size = max(size_of(vmlinux, "twice"))
    places = " ".join(f"twice+{n:#x}/{size:#x}" for n in range(size))
    assert "(drivers/other.c:3 drivers/other.c:5)" in Symbols(vmlinux).decode(places)


def test_the_title_stays_and_nothing_is_decoded_twice(vmlinux: Path) -> None:
    size = size_of(vmlinux, "caller")[0]
    log = f"[    1.0] WARNING: CPU: 0 PID: 1 at init/main.c:8 caller+0x10/{size:#x}\n"
    symbols = Symbols(vmlinux)
    (raw,) = find(log)
    decoded = symbols.decode(raw.text)
    assert [splat.title for splat in find(decoded)] == [raw.title]
    assert symbols.decode(decoded) == decoded


def test_a_modules_function_is_looked_up_in_its_module(vmlinux: Path, tmp_path: Path) -> None:
    """Each of its sections begins at 0: the address alone says nothing."""
    starts = '__attribute__((section(".init.text"))) '
    text = f"int probe(int x)\n{{\n\treturn x;\n}}\n{starts}int start(void)\n{{\n\treturn 1;\n}}\n"
    tree = vmlinux.parent
    (tree / "drivers" / "vfio-pci.c").write_text(text)
    made = ["gcc", "-g", "-c", "-o", str(tmp_path / "vfio-pci.ko"), "drivers/vfio-pci.c"]
    subprocess.run(made, cwd=tree, check=True)
    sizes = {name: size_of(tmp_path / "vfio-pci.ko", name)[0] for name in ("probe", "start")}
    text = "".join(f" {name}+0x1/{size:#x} [vfio_pci]\n" for name, size in sizes.items())
    known, unknown = Symbols(vmlinux, tmp_path), Symbols(vmlinux)
    assert re.findall(r"\((.*)\)", known.decode(text)) == [
        "drivers/vfio-pci.c:2",
        "drivers/vfio-pci.c:6",
    ]
    assert unknown.decode(text) == text
    assert (known.lack(text), unknown.lack(text), unknown.lack(" f+0x1/0x2")) == (
        False,
        True,
        False,
    )


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vmlinux").write_text("no ELF")
    with pytest.raises(
        InfrastructureError, match=r"no file and line: `nm (?s:.*)format not recognized"
    ):
        Symbols(tmp_path / "vmlinux").decode(" f+0x1/0x2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="no file and line: nm is not installed"):
        Symbols(tmp_path / "vmlinux").decode(" f+0x1/0x2")


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nm").write_text("#!/bin/sh\necho 1\nsleep 60 & sleep 60\n")
    (tmp_path / "nm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(symbols, "_LIMIT", 0.2)
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match=r"no file and line: `nm .* longer than 0.2 s"):
        Symbols(tmp_path / "vmlinux").decode(" f+0x1/0x2")
    assert time.monotonic() - began < 20
