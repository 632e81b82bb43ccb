"""Writes the measured sections of docs/performance.md, for the tools beside this file, and says where they were measured."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"


def section(name: str) -> str:
    """The present content of the section, or an empty text if the section is missing."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    found = re.search(f"{re.escape(begin(name))}\n(.*?){re.escape(end(name))}", text, re.DOTALL)
    return found.group(1) if found else ""


def write_section(name: str, content: str) -> None:
    """Replaces the text between the section's markers. Appends the markers if they are missing."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else "# Performance\n"
    if begin(name) not in text:
        text = f"{text}\n{begin(name)}\n{end(name)}\n"
    before, rest = text.split(begin(name), 1)
    _, after = rest.split(end(name), 1)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(f"{before}{begin(name)}\n{content.strip()}\n{end(name)}{after}")


def begin(name: str) -> str:
    return f"<!-- {name}: begin -->"


def end(name: str) -> str:
    return f"<!-- {name}: end -->"


def circumstances() -> str:
    """The date, the commit and the machine, as a part of a sentence."""
    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!docs").returncode
    commit = "no commit" if head.returncode else f"commit `{head.stdout.strip()}`{' and changes' if changed else ''}"
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = f"{os.cpu_count()} cores of {model.group(1) if model else os.uname().machine}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {commit}, {processor}"


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with text in the first column and figures in the others."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
