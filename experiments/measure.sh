#!/usr/bin/env bash
# Measure the tables of an experiment on this device, run it live, and hold the simulator against it (docs/validation.md).
#
#   experiments/measure.sh EXPERIMENT.yaml cuda|cpu OUT [PART...]
#
# Parts, in this order, all of them if none is named: profile, live, fit (host times from the runs that calibrate),
# validate. Each goes on where it was stopped. OUT must be a relative path; tables go to OUT/traces, or to TABLES.
# Environment: PYTHON, NAME (first part of the tables' names), REPEATS, PROFILE and LIVE (more options of these commands).
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 3 ] && [ -f "$1" ] || usage
experiment=$1 device=$2 out=$3
shift 3
case $device in cuda | cpu) ;; *) usage ;; esac
parts=${*:-profile live fit validate}
for part in $parts; do case $part in profile | live | fit | validate) ;; *) usage ;; esac; done

moesim=("${PYTHON:-python3}" -m moesim)
tables=${TABLES:-$out/traces}
read -r name shape slug throttle < <("${PYTHON:-python3}" - "$experiment" "$device" "${NAME:-}" "${PROFILE:-}" <<'PYTHON'
import re, sys, yaml
from moesim.hardware.shape import load_shape
from moesim.live.machine import device_of, short_name
file, device, name, options = sys.argv[1:]
held = re.search(r"--throttle[ =](\S+)", options)
document = yaml.safe_load(open(file, encoding="utf-8"))
from moesim.experiment import parse_bytes
rate = f"-{parse_bytes(held[1]) // 10**6}mb" if held else "-"
print(document["name"], load_shape(document["model"]).name, name or short_name(device_of(device)), rate)
PYTHON
)
[ "$throttle" = - ] && throttle=
costs=$tables/kernels/$slug-$shape.json link=$tables/links/$slug$throttle.json
use=(--set "costs=$PWD/$costs" --set "link=$PWD/$link")
[ "$tables" = traces ] && use=(--set "costs=$slug-$shape" --set "link=$slug$throttle")

for part in $parts; do
  case $part in
    profile)
      # shellcheck disable=SC2086
      "${moesim[@]}" profile --shape "$shape" --device "$device" --name "$slug" --out "$tables" ${PROFILE:-}
      ;;
    live)
      # shellcheck disable=SC2086
      "${moesim[@]}" live "$experiment" "${use[@]}" --device "$device" --repeats "${REPEATS:-3}" \
        --out "$out/live/$name" --quiet ${LIVE:-}
      ;;
    fit)
      "${moesim[@]}" profile --shape "$shape" --device "$device" --name "$slug" --out "$tables" \
        --what host --host-from "$out/live/$name"
      ;;
    validate)
      "${moesim[@]}" validate "$experiment" "${use[@]}" --measured "$out/live/$name" --out "$out/validate/$name"
      ;;
  esac
done
