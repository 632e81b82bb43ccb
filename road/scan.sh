#!/usr/bin/env bash
# scan.sh IMAGE:TAG: looks up known vulnerabilities with trivy, and writes them to target/reports. It never fails because of one.
#
#   image-scan.txt      for the image; trivy finds the component's crates in the SBOM inside the image
#   programs-scan.txt   for the host, which only a standalone image has, and for the deployer
#   *.cdx.json          the SBOMs of the three
#
# The report and the last line name what was not scanned. Without a database, trivy 0.74 exits with 1 and writes no report
# (pkg/commands/artifact/run.go, cmd/trivy/main.go).
set -euo pipefail
image=$1
reports=target/reports
scanned='' last=scan:
declare -A unscanned # by reason

# scan REPORT WHAT ARGUMENT…: appends to REPORT what trivy finds with these arguments.
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
