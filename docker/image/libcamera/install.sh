#!/bin/sh
# Installs libcamera and its Python binding from Debian's backports, for the images with picamera2: install.sh
#
# What apt is told stays in the image: where libcamera comes from (backports.sources), that nothing else comes from there
# (backports.pref), and that there is no Mesa (no-mesa.control says why; 212 MB less).
set -eu
here=$(dirname "$0")

install -m 644 "$here/backports.sources" /etc/apt/sources.list.d/camdock-backports.sources
install -m 644 "$here/backports.pref" /etc/apt/preferences.d/camdock-backports.pref
package=$(mktemp -d)
mkdir "$package/DEBIAN"
install -m 644 "$here/no-mesa.control" "$package/DEBIAN/control"
chmod 755 "$package"
# apt's own user reads it, too; the date would differ from build to build.
SOURCE_DATE_EPOCH=946684800 dpkg-deb --root-owner-group --build "$package" /var/tmp/no-mesa.deb
chmod 644 /var/tmp/no-mesa.deb

# 0.7 alone: which picamera2 works with which libcamera is known by trying, and an upgrade must not happen by itself.
# libcap2 is for python-prctl, libarchive for libarchive-c: picamera2 needs both of them.
apt-get update
apt-get install --yes --no-install-recommends /var/tmp/no-mesa.deb \
  'python3-libcamera=0.7.*' 'libcamera-ipa=0.7.*' libarchive13t64 libcap2
rm -rf "$package" /var/tmp/no-mesa.deb
