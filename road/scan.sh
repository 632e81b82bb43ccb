#!/usr/bin/env bash
# Looks up known vulnerabilities, with trivy, into target/reports, and breaks nothing: scan.sh IMAGE:TAG
#
#   image-scan.txt      of the image; trivy finds the component's crates by the list that lies in the image
#   programs-scan.txt   of the host, which only a standalone image holds, and of the deployer
#   *.cdx.json          what each of the three is made of
#
# What was not scanned is said to be not scanned, in its report and in the last line. trivy 0.74 ends with 1 and writes
# no report where it has no database (pkg/commands/artifact/run.go, cmd/trivy/main.go).
set -euo pipefail
image=$1
reports=target/reports
scanned='' last=scan:
declare -A unscanned # by reason

# scan REPORT WHAT ARGUMENT…: what trivy finds with these arguments, at the end of REPORT.
scan() {
  local report=$reports/$1 what=$2 found because
  found=$(mktemp)
  if ! command -v trivy >/dev/null; then
    because="trivy is not on PATH; https://trivy.dev says how to install it"
  elif because=$(trivy "${@:3}" --quiet --exit-code 0 --output "$found" 2>&1); then
    cat "$found" >>"$report"
    scanned+=", $what"
    because=''
  else
    because=$(tr -s '[:space:]' ' ' <<<" ${because#*FATAL}")
    because="trivy says:${because% }"
  fi
  rm "$found"
  [ -n "$because" ] || return 0
  echo "$what was not scanned, because $because" >>"$report"
  unscanned[$because]+=", $what"
}

mkdir -p "$reports"
rm -f "$reports"/*-scan.txt "$reports"/*.cdx.json
native=$(rustc -vV | sed -n 's/^host: //p')
road/sbom.sh component wasm32-wasip2 >"$reports/component.cdx.json"
road/sbom.sh host "$native" >"$reports/host.cdx.json"
road/sbom.sh deployer "$native" >"$reports/deployer.cdx.json"

scan image-scan.txt "the image" image "$image"
scan programs-scan.txt "the host" sbom "$reports/host.cdx.json"
scan programs-scan.txt "the deployer" sbom "$reports/deployer.cdx.json"
cat "$reports"/*-scan.txt

[ -z "$scanned" ] || last+=" scanned: ${scanned#, }."
for because in "${!unscanned[@]}"; do last+=" Not scanned: ${unscanned[$because]#, }, because $because."; done
echo "$last Reports: $reports"
