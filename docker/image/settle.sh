#!/bin/sh
# Puts what was just installed below FOLDER into its final form: settle.sh FOLDER [how bytecode is checked]
#
# Bytecode is written once, here: the containers' file systems are read-only. It carries a hash of its source instead of
# the source's date, and every file gets the same date, so that two builds give the same bytes, and `camdock seal` holds
# in every copy of the image. Only files newer than that date are touched: what an older layer has stays in that layer.
set -eu
folder=$1
check=${2:-checked-hash}
date=2000-01-01

find "$folder" -name '*.py' -newermt "$date 12:00" -path '*/site-packages/*' -print | LC_ALL=C sort >/tmp/settle
"$folder/bin/python" -P -m compileall -q --invalidation-mode "$check" -i /tmp/settle
rm /tmp/settle
find "$folder" -newermt "$date 12:00" -exec touch --no-dereference --date="$date" {} +
