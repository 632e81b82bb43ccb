"""docs/performance.md, whose measured sections the tools beside this file write, and where they were measured."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT = REPOSITORY / "docs" / "performance.md"


def section(name: str) -> str:
    """What the section holds now; empty where there is none."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    found = re.search(f"{re.escape(begin(name))}\n(.*?){re.escape(end(name))}", text, re.DOTALL)
    return found.group(1) if found else ""


def write_section(name: str, content: str) -> None:
    """Replaces what stands between the section's markers, and appends them where they are missing."""
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
    """When, at which commit and on which machine: half a sentence."""
    head = git("rev-parse", "--short=12", "HEAD")
    changed = git("diff", "--quiet", "HEAD", "--", ".", ":!docs").returncode
    commit = "no commit" if head.returncode else f"commit `{head.stdout.strip()}`{' and changes' if changed else ''}"
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    processor = f"{os.cpu_count()} cores of {model.group(1) if model else os.uname().machine}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {commit}, {processor}"


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
