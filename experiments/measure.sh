#!/usr/bin/env bash
# Measure the tables of an experiment on this device, run it live, and hold the simulator against it (docs/validation.md).
#
#   experiments/measure.sh EXPERIMENT.yaml cuda|cpu OUT [PART...]
#
# Parts, in this order, all of them if none is named: profile; calibrate (live runs of settings that calibrate); fit (host
# times of the table from them); live; validate. Each goes on where it was stopped. OUT must be a relative path; tables go to OUT/traces, or to TABLES.
# Environment: PYTHON, NAME (first part of the tables' names), REPEATS, PROFILE and LIVE (more options of these commands).
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -ge 3 ] && [ -f "$1" ] || usage
experiment=$1 device=$2 out=$3
shift 3
case $device in cuda | cpu) ;; *) usage ;; esac
parts=${*:-profile calibrate fit live validate}
for part in $parts; do case $part in profile | calibrate | fit | live | validate) ;; *) usage ;; esac; done

moesim=("${PYTHON:-python3}" -m moesim)
tables=${TABLES:-$out/traces}
read -r name shape model slug throttle < <("${PYTHON:-python3}" - "$experiment" "$device" "${NAME:-}" "${PROFILE:-}" <<'PYTHON'
import re
import sys

import yaml

from moesim.experiment import parse_bytes
from moesim.hardware.shape import load_shape
from moesim.inputs import resolve
from moesim.live.machine import device_of, short_name

file, device, name, options = sys.argv[1:]
document = yaml.safe_load(open(file, encoding="utf-8"))
model = resolve(document["model"], file.rpartition("/")[0] or ".")
held = re.search(r"--throttle[ =](\S+)", options)
rate = f"-{parse_bytes(held[1]) // 10**6}mb" if held else "-"
print(document["name"], model, load_shape(model).name, name or short_name(device_of(device)), rate)
PYTHON
)
[ "$throttle" = - ] && throttle=
costs=$tables/kernels/$slug-$model.json link=$tables/links/$slug$throttle.json
use=(--set "costs=$PWD/$costs" --set "link=$PWD/$link")
[ "$tables" = traces ] && use=(--set "costs=$slug-$model" --set "link=$slug$throttle")

for part in $parts; do
  case $part in
    profile)
      # shellcheck disable=SC2086
      "${moesim[@]}" profile --shape "$shape" --device "$device" --name "$slug" --out "$tables" ${PROFILE:-}
      ;;
    calibrate)
      # shellcheck disable=SC2086
      "${moesim[@]}" live "$experiment" "${use[@]}" --device "$device" --role calibrate \
        --out "$out/calibration/$name" --quiet ${LIVE:-}
      ;;
    live)
      # shellcheck disable=SC2086
      "${moesim[@]}" live "$experiment" "${use[@]}" --device "$device" --repeats "${REPEATS:-3}" \
        --out "$out/live/$name" --quiet ${LIVE:-}
      ;;
    fit)
      "${moesim[@]}" profile --shape "$shape" --device "$device" --name "$slug" --out "$tables" \
        --what host --host-from "$out/calibration/$name" --quiet
      "${moesim[@]}" validate "$experiment" "${use[@]}" --measured "$out/calibration/$name" --fit "$costs" \
        --out "$out/fit/$name"
      ;;
    validate)
      "${moesim[@]}" validate "$experiment" "${use[@]}" --measured "$out/live/$name" --out "$out/validate/$name"
      ;;
  esac
done
