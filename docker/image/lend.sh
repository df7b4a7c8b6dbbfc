#!/bin/sh
# Lends an environment what only Debian has: libcamera's binding, where it is installed. lend.sh FOLDER
#
# By a link to that one package. An environment with --system-site-packages would see everything that apt has installed,
# and one `apt install python3-simplejpeg` later a module for another NumPy. prove.py looks that nothing else is lent.
set -eu
binding=/usr/lib/python3/dist-packages/libcamera
[ -d "$binding" ] || exit 0
packages=$(echo "$1"/lib/python3*/site-packages)
ln -s "$binding" "$packages/libcamera"
