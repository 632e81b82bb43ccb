#!/usr/bin/env python3
"""Counts with callgrind, and so without noise, the instructions that the pure core executes for one request.

Each kind of request is answered N and 2N times, and the difference divided by N, so that starting the program
does not count. The table is written to docs/performance.md; with --check, nothing is written, and a figure more
than 5 % above the one recorded there is a failure (exit code 1).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys

import performance
from performance import REPOSITORY

KINDS = {
    "text": "`GET /` by curl",
    "html": "`GET /` by a browser",
    "json": "`GET /` with `Accept: application/json`",
    "proxies": "`GET /` by curl, two `X-Forwarded-For` lines and trusted proxies",
    "form": "`POST /` by curl, `multipart/form-data`",
}
TARGET = "x86_64-unknown-linux-gnu"
TIMES = 1000
TOLERANCE = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is recorded instead of recording")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("instructions.py: valgrind is missing: apt-get install valgrind")

    core = build()
    measured = {kind: per_request(core, kind) for kind in KINDS}
    if arguments.check:
        check(measured)
        return
    table = performance.table(
        ["request", "instructions"], [[text, f"{measured[kind]:,}"] for kind, text in KINDS.items()]
    )
    print(table)
    performance.write_section(
        "core",
        f"{table}\n\nCounted by `bench/instructions.py`: {performance.circumstances()},"
        f" {version('valgrind')}, {version('rustc')}. Native code, release profile:"
        " what `respond` and reading the settings take, without WebAssembly and HTTP.",
    )


def check(measured: dict[str, int]) -> None:
    recorded = re.findall(r"^\| (.*) \| ([\d,]+) \|$", performance.section("core"), re.MULTILINE)
    figures = {text: int(figure.replace(",", "")) for text, figure in recorded}
    if missing := [text for text in KINDS.values() if text not in figures]:
        sys.exit(f"instructions.py: {performance.DOCUMENT} has no figure for {missing[0]}: record it without --check")
    ratios = {kind: measured[kind] / figures[text] for kind, text in KINDS.items()}
    for kind, text in KINDS.items():
        print(f"{kind:<8} {measured[kind]:>9,} instructions, {ratios[kind] - 1:+.1%} of the {figures[text]:,} recorded")
    if risen := [kind for kind, ratio in ratios.items() if ratio > TOLERANCE]:
        sys.exit(
            f"instructions.py: {', '.join(risen)}: more than {TOLERANCE - 1:.0%} above the record;"
            " find what costs so much, or record the new figures without --check and say why"
        )


def build() -> str:
    """Builds the program to count, and returns its path."""
    command = ["cargo", "build", "--quiet", "--release", "--target", TARGET, "-p", "request-info", "--example", "core"]
    if code := subprocess.run(command, cwd=REPOSITORY).returncode:
        sys.exit(f"instructions.py: `{' '.join(command)}` ended with {code}")
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    return str(REPOSITORY / target / TARGET / "release/examples/core")


def per_request(core: str, kind: str) -> int:
    return round((instructions(core, kind, 2 * TIMES) - instructions(core, kind, TIMES)) / TIMES)


def instructions(core: str, kind: str, times: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", core, kind, str(times)]
    valgrind = subprocess.run(command, capture_output=True, text=True)
    collected = re.search(r"Collected : (\d+)", valgrind.stderr)
    if valgrind.returncode or not collected:
        sys.exit(f"instructions.py: `{' '.join(command)}` ended with {valgrind.returncode}: {valgrind.stderr}")
    return int(collected.group(1))


def version(tool: str) -> str:
    told = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    return " ".join(told.split()[:2])


if __name__ == "__main__":
    main()
