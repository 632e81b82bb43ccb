"""Values that make is given become words of commands: what is not a plain word is refused before anything runs."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ["COMMIT", "IMAGE", "NAMESPACE", "CONTEXT", "LISTEN"]
REFUSED = {
    "a space": "one two",
    "nothing but a space": " ",
    "a line's end": "one\ntwo",
    "a quote that ends a word": "x'; touch {}; echo '",
    "a double quote": 'x"; touch {}; echo "',
    "a command in the shell's words": "$$(touch {})",
    "a command in make's words": "$(shell touch {})",
    "a command in backquotes": "`touch {}`",
    "two commands": "x;touch {}",
    "a path that the shell completes": "/*",
    "an option": "--rm",
}


def make(target: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name not in {*NAMES, "MAKEFLAGS", "MAKELEVEL"}}
    environment = {**inherited, **environment}
    return subprocess.run(["make", "-n", target, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("through", ["argument", "environment"])
@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_not_a_plain_word_is_refused_in_one_line(tmp_path, name, what, through):
    touched = tmp_path / "touched"
    value = REFUSED[what].replace("{}", str(touched))
    # make cuts spaces at both ends off an argument.
    if through == "argument" and not value.strip():
        return
    done = make("help", f"{name}={value}") if through == "argument" else make("help", **{name: value})
    assert not touched.exists()
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and f"{name} is refused" in done.stderr, done.stderr


PLAIN = {
    "COMMIT": "0123456789abcdef0123456789abcdef01234567",
    "IMAGE": "registry.example:5000/team_a/request-info",
    "NAMESPACE": "web-2",
    "CONTEXT": "arn:aws:eks:us-east-1:123456789012:cluster/request-info",
    "LISTEN": "[::1]:3000",
}


def test_plain_words_are_taken():
    done = make("deploy", *(f"{name}={value}" for name, value in PLAIN.items()))
    assert done.returncode == 0, done.stderr
    for name in ["COMMIT", "NAMESPACE", "CONTEXT"]:
        assert PLAIN[name] in done.stdout
    assert "request-info:0123456789ab" in done.stdout


def test_the_tag_is_never_given():
    assert "TAG=other" not in make("push", "TAG=other").stdout
    assert "other" not in make("push", "TAG=other", f"COMMIT={PLAIN['COMMIT']}").stdout
