#!/usr/bin/env bash
# What the tests need from Debian, beyond Python. Installs what is missing as root with apt; elsewhere it says what is
# missing, and the tests that need it report themselves as skipped. With CI=true whatever stays missing is a failure.
#
#   tests/testbed/packages.sh [chromium] [clang] [ffmpeg] [fuse3] [g++] [gcc-aarch64-linux-gnu]
#                              [gstreamer1.0-tools] [gstreamer1.0-plugins-good] [libc6-dev-arm64-cross] [mmdebstrap] [prometheus] [qemu-system-x86] [e2fsprogs]
#                              [openssh-client] [qemu-user-static]
#
#   always     gcc, libc headers   the fake V4L2 camera and the load client are C
#              ustreamer           the peer that `make bench` and the comparison tests run beside us
#   chromium   the browser that opens the page
#   clang, g++, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross   compile the modules whose code the ABI tool reads
#   ffmpeg, gstreamer1.0-tools, gstreamer1.0-plugins-good   clients of the stream (the last one reads HTTP and JPEG)
#   fuse3      a file system that is slow or full on command
#   mmdebstrap root file systems of other Debian releases (roots.sh)
#   prometheus scrapes the service, judges it by our alert rules, answers the dashboard's queries
#   qemu-system-x86, e2fsprogs, openssh-client   machines with a kernel of their own (vm.sh), and a way into them
#   qemu-user-static  runs the aarch64 wheels of the images, on request
set -euo pipefail

has() {
  case $1 in
    gcc) command -v gcc >/dev/null ;;
    libc6-dev) [ -e /usr/include/stdio.h ] ;;
    linux-libc-dev) [ -e /usr/include/linux/videodev2.h ] ;;
    ustreamer | chromium | clang | ffmpeg | g++ | mmdebstrap) command -v "$1" >/dev/null ;;
    gstreamer1.0-tools) command -v gst-launch-1.0 >/dev/null ;;
    gstreamer1.0-plugins-good) compgen -G '/usr/lib/*/gstreamer-1.0/libgstsoup.so' >/dev/null ;;
    gcc-aarch64-linux-gnu) command -v aarch64-linux-gnu-gcc >/dev/null ;;
    libc6-dev-arm64-cross) [ -e /usr/aarch64-linux-gnu/include/stdio.h ] ;;
    qemu-user-static) command -v qemu-aarch64-static >/dev/null ;;
    fuse3) command -v fusermount3 >/dev/null ;;
    qemu-system-x86) command -v qemu-system-x86_64 >/dev/null ;;
    e2fsprogs) command -v mkfs.ext4 >/dev/null ;;
    openssh-client) command -v ssh >/dev/null && command -v ssh-keygen >/dev/null ;;
    prometheus) command -v prometheus >/dev/null && command -v promtool >/dev/null ;;
    *) echo "packages.sh: unknown word '$1'; see the head of this file" >&2 && exit 2 ;;
  esac
}

lacking() {
  missing=()
  for package in "${wanted[@]}"; do
    has "$package" || missing+=("$package")
  done
}

wanted=(gcc libc6-dev linux-libc-dev ustreamer "$@")
lacking
if [ ${#missing[@]} = 0 ]; then
  echo "Test bed: everything is here (${wanted[*]})"
  exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Test bed: installing ${missing[*]} ..."
  export DEBIAN_FRONTEND=noninteractive
  # The package would start a Prometheus at once and at every boot; the tests start their own. A mask keeps systemd from
  # that (`systemctl unmask prometheus` takes it back), the runlevel keeps invoke-rc.d from it.
  export RUNLEVEL=1
  if [[ " ${missing[*]} " == *" prometheus "* && -d /run/systemd/system ]]; then
    systemctl --quiet mask prometheus.service || true
  fi
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! {
    apt-get update -qq && apt-get install -qq --yes --no-install-recommends "${missing[@]}"
  } >"$log" 2>&1; then
    echo "Test bed: apt-get failed:" >&2
    tail -n 20 "$log" >&2
  fi
  hash -r
  lacking
  [ ${#missing[@]} = 0 ] && echo "Test bed: ready" && exit 0
fi

echo "Test bed: missing ${missing[*]}. On Debian, as root: apt install ${missing[*]}" >&2
if [ "${CI:-}" = true ]; then
  echo "Test bed: CI=true, and nothing may be skipped there: this is a failure" >&2
  exit 1
fi
echo "Test bed: the tests that need them are reported as skipped" >&2
