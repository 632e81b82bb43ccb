#!/usr/bin/env bash
# Makes the standalone image's manifest from the shim's: template.sh <TEMPLATE >STANDALONE
#
#   a line that ends in `# shim only` is dropped
#   if a line ends in `# standalone: VALUE`, VALUE replaces the line's value
#
# Any other comment at the end of a line that begins with one of these two marks is an error, and so is a dropped line with
# other lines nested below it.
set -euo pipefail
exec awk '
  function fail(why) { printf "template: line %d %s:%s\n", NR, why, $0 | "cat >&2"; exit 1 }
  function indent(line) { match(line, /^[ -]*/); return RLENGTH }
  /^ *(#|$)/ { print; next }
  omitted && indent($0) >= omitted { fail("is below one that is dropped") }
  { omitted = 0 }
  / # shim only$/ { omitted = indent($0) + 1; next }
  match($0, / +# standalone: [^ #].*$/) {
    value = substr($0, RSTART)
    sub(/^ +# standalone: /, "", value)
    if (!match($0, /^ *(- )?[A-Za-z.\/-]+: [^ #]/)) fail("has no value to replace")
    print substr($0, 1, RLENGTH - 1) value
    next
  }
  tolower($0) ~ /# *(shim only|standalone)/ { fail("has a comment that looks like a marker and is not one") }
  { print }
'
