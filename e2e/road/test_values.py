"""make's variables become words of commands. A value that is not a plain word is refused before anything runs."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ["COMMIT", "IMAGE", "NAMESPACE", "CONTEXT", "RUNTIME", "LISTEN"]
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
    # make removes spaces at both ends of an argument.
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
    "RUNTIME": "standalone",
    "LISTEN": "[::1]:3000",
}


def test_plain_words_are_accepted():
    done = make("deploy", *(f"{name}={value}" for name, value in PLAIN.items()))
    assert done.returncode == 0, done.stderr
    for name in ["COMMIT", "NAMESPACE", "CONTEXT"]:
        assert PLAIN[name] in done.stdout
    assert "request-info-standalone:0123456789ab" in done.stdout and "target/standalone.yaml.tmp" in done.stdout


@pytest.mark.parametrize("value", ["", "spin", "shim standalone", "Standalone"])
def test_a_runtime_that_is_neither_of_the_two_is_refused(value):
    done = make("deploy", RUNTIME=value)
    assert (done.returncode, done.stdout) == (2, "")
    assert "RUNTIME is refused" in done.stderr and len(done.stderr.splitlines()) == 1


#: The result of road/template.sh for a manifest; None if it refuses the manifest.
TEMPLATES = {
    "a: 1\n": "a: 1\n",
    "a: 1 # as it is\nb:\n  c: 2 # shim only\n  d: 3\n": "a: 1 # as it is\nb:\n  d: 3\n",
    "- a: one # standalone: two words\n": "- a: two words\n",
    "# a line that ends in `# shim only`\na: 1\n": "# a line that ends in `# shim only`\na: 1\n",
    "a: 1 # shim only, for now\n": None,
    "a: 1 # Shim only\n": None,
    "a: 1 # standalone:\n": None,
    "a: 1 # standalone 2\n": None,
    "a: # standalone: 2\n  b: 1\n": None,
    "a: # shim only\n  b: 1\n": None,
}


@pytest.mark.parametrize("manifest", TEMPLATES)
def test_the_standalone_manifest_is_made_from_the_shims_by_rules(manifest):
    done = subprocess.run([ROOT / "road/template.sh"], input=manifest, capture_output=True, text=True)
    if (made := TEMPLATES[manifest]) is None:
        assert done.returncode != 0 and "template: line " in done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, made, "")


def test_the_standalone_manifest_has_no_runtime_class_and_no_capability():
    manifest = (ROOT / "kubernetes/deployment.yaml.tmp").read_text()
    made = subprocess.run([ROOT / "road/template.sh"], input=manifest, capture_output=True, text=True, check=True).stdout
    for word in ["runtimeClassName:", "add:"]:
        assert word in manifest and word not in made
    assert "drop: [ALL]" in made and "memory: 128Mi" in made


def test_the_tag_cannot_be_given():
    assert "TAG=other" not in make("push", "TAG=other").stdout
    assert "other" not in make("push", "TAG=other", f"COMMIT={PLAIN['COMMIT']}").stdout
