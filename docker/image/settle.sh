#!/bin/sh
# Puts what was just installed below FOLDER into its final form: settle.sh FOLDER [FORM]
#
# Bytecode is written once, here: the containers' file systems are read-only. It carries a hash of its source instead of
# the source's date, and every file gets the same date, so that two builds give the same bytes, and `camdock seal` holds
# in every copy of the image. Only files newer than that date are touched: what an older layer has stays in that layer.
#
#   checked-hash     bytecode beside the source, which is asked at every import (the default)
#   unchecked-hash   the same, and the source is not asked: a little quicker
#   sourceless       bytecode instead of the source: 18 MB less
set -eu
folder=$1
form=${2:-checked-hash}
date=2000-01-01
files=$(mktemp)
trap 'rm -f "$files"' EXIT

find "$folder" -name '*.py' -newermt "$date 12:00" -path '*/site-packages/*' | LC_ALL=C sort >"$files"
# -f: what pip brought compiled already carries dates.
compile() { "$folder/bin/python" -P -m compileall -q -f --invalidation-mode "$@"; }
if [ "$form" = sourceless ]; then
  # What a package is found by, and NumPy's version, stay: `camdock abi` reads them and runs nothing. cv2 reads its own.
  kept=$(mktemp)
  grep -E '/site-packages/([^/]+|[^/]+/__init__|cv2/.+|numpy/version)\.py$' "$files" >"$kept"
  compile unchecked-hash -i "$kept"
  grep -v -x -F -f "$kept" "$files" >"$files.rest"
  compile unchecked-hash -b -i "$files.rest"
  xargs rm <"$files.rest"
  rm "$kept" "$files.rest"
else
  compile "$form" -i "$files"
fi
find "$folder" -newermt "$date 12:00" -exec touch --no-dereference --date="$date" {} +
