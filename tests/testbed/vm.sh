#!/usr/bin/env bash
# Virtual machines with a kernel of their own, an SSH server and the V4L2 test driver `vivid`. Prints the folder of each
# machine asked for, making it first where it is not there yet.
#
#   tests/testbed/vm.sh trixie trixie-engine   as root, on x86-64; needs mmdebstrap, mkfs.ext4, ssh-keygen, not QEMU
#
#   trixie           Debian 13: systemd, sshd, Python, sudo, v4l2-ctl; and python3-venv and python3-apt, which Raspberry
#                    Pi OS has from the start and an emulated processor would take two minutes to fetch and unpack
#   trixie-engine    the same with Debian's Docker engine and compose, started at boot
#
# In the folder: disk.img (root file system, to be used with snapshot=on), vmlinuz, initrd, key (for root, and for pi,
# who may sudo and is in no group for cameras), known_hosts (one line, for the host alias `camdock-vm`). The machine's
# address is 10.0.2.15, as QEMU's user network expects; on its serial console it says "camdock-vm: ready" when sshd, and
# the engine, take commands. tests/tools/machine.py boots it.
#
# They are kept in ~/.cache/camdock/vm ($CAMDOCK_TEST_CACHE/vm), named after what they were made from, and are there
# whole or not at all: a machine is made beside its place and renamed. Half-made ones of a killed run are removed.
# CAMDOCK_TEST_MIRROR: another Debian mirror.
set -euo pipefail

cache=${CAMDOCK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/camdock}/vm
mirror=${CAMDOCK_TEST_MIRROR:-} # empty: Debian's own, as mmdebstrap knows it
packages=linux-image-amd64,systemd,systemd-sysv,dbus,udev,kmod,iproute2,openssh-server,python3,sudo,procps,v4l-utils,ca-certificates
disk=8G # sparse: what is not written takes no room

contents() { # contents NAME: the packages beyond the essential ones, joined by commas
  case $1 in
    trixie) echo "$packages,python3-apt,python3-venv" ;;
    trixie-engine) echo "$packages,docker.io,docker-cli,docker-compose,iptables" ;;
    *) echo "vm.sh: no machine is called '$1'; it knows trixie and trixie-engine" >&2 && return 2 ;;
  esac
}

settle() { # settle ROOT PUBLIC-KEY-FILE: makes the root file system one that boots here, quickly
  local root=$1 key=$2 home unit
  echo camdock-vm >"$root/etc/hostname"
  printf '127.0.0.1 localhost camdock-vm\n::1 localhost\n' >"$root/etc/hosts"
  echo '/dev/vda / ext4 defaults,noatime 0 1' >"$root/etc/fstab"
  # A fixed address: nothing waits for DHCP. These are the addresses of QEMU's user network.
  printf '%s\n' '[Match]' 'Name=en* eth*' '[Network]' 'Address=10.0.2.15/24' 'Gateway=10.0.2.2' 'DNS=10.0.2.3' \
    'LinkLocalAddressing=no' 'IPv6AcceptRA=no' >"$root/etc/systemd/network/10-user.network"
  rm -f "$root/etc/resolv.conf"
  echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
  chroot "$root" useradd --create-home --shell /bin/bash pi
  echo 'pi ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/pi"
  for home in root home/pi; do
    install -d -m 700 "$root/$home/.ssh"
    install -m 600 "$key" "$root/$home/.ssh/authorized_keys"
  done
  chroot "$root" chown -R pi:pi /home/pi/.ssh
  # Every connection is from the next room, and the emulated processor does each reverse look-up in vain.
  printf '%s\n' 'UseDNS no' 'PermitRootLogin prohibit-password' >"$root/etc/ssh/sshd_config.d/vm.conf"
  cat >"$root/etc/systemd/system/vm-ready.service" <<'END'
[Unit]
Description=Tells the serial console that the machine takes commands
After=ssh.service docker.service multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "camdock-vm: ready" >/dev/ttyS0'
[Install]
WantedBy=default.target
END
  # Nothing is to be brought up to date at the first boot: every boot is the first.
  touch "$root/etc/.updated" "$root/var/.updated"
  chroot "$root" systemctl --quiet enable systemd-networkd ssh vm-ready
  chroot "$root" systemctl --quiet disable systemd-networkd-wait-online
  # What an hour-old machine in a test never needs, and what costs seconds on an emulated processor.
  for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty@.service serial-getty@ttyS0.service systemd-timesyncd.service; do
    chroot "$root" systemctl --quiet mask "$unit"
  done
}

if [ $# = 0 ]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
for name in "$@"; do contents "$name" >/dev/null; done
if [ "$(uname -m)" != x86_64 ]; then
  echo "vm.sh: these machines are x86-64 ones, made on one; this is $(uname -m)" >&2
  exit 1
fi

half=
explain() { # when a step has failed: its words, and nothing half-made
  [ -d "$half" ] || return 0
  echo "vm.sh: ${half##*/.half-} could not be made${mirror:+ from $mirror}:" >&2
  tail -n 20 "$half/log" >&2
  rm -rf --one-file-system "$half"
}
trap explain EXIT

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # a second run waits for the first one's machine instead of making its own

recipe() { sed -n '/^set /,$p' "$0" && contents "$1"; } # all but the words at the head
for name in "$@"; do
  place=$cache/$name-$(recipe "$name" | cksum | cut -d ' ' -f 1)
  if [ ! -d "$place" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null || ! command -v mkfs.ext4 >/dev/null \
      || ! command -v ssh-keygen >/dev/null; then
      echo "vm.sh: $name cannot be made: it takes root, mmdebstrap, mkfs.ext4 (e2fsprogs) and ssh-keygen" >&2
      exit 1
    fi
    half=$cache/.half-$name
    rm -rf --one-file-system "$half"
    # One of another recipe may be running, for another checkout: only what nobody has asked for in a week goes.
    find "$cache" -maxdepth 1 -name "$name-[0-9]*" -mtime +7 -exec rm -rf --one-file-system {} +
    mkdir "$half"
    began=$EPOCHSECONDS
    ssh-keygen -q -t ed25519 -N '' -C camdock-vm -f "$half/key"
    trust=()
    for file in /usr/local/share/ca-certificates/*.crt; do
      [ ! -e "$file" ] || trust+=(--essential-hook="copy-in $file /usr/local/share/ca-certificates")
    done
    # MODULES=list: the initrd holds what mounts the root file system, not every driver: less to unpack at each boot.
    # In a session of its own: see bases.sh.
    # shellcheck disable=SC2016 # $1 is the root file system, for the shell that mmdebstrap starts
    setsid --wait mmdebstrap --quiet --variant=minbase --include="$(contents "$name")" \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/local/share/ca-certificates"' \
      --essential-hook='echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"' \
      --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"' \
      "${trust[@]}" \
      --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' \
      trixie "$half/root" ${mirror:+"$mirror"} >"$half/log" 2>&1
    settle "$half/root" "$half/key.pub" >>"$half/log" 2>&1
    cp --dereference "$half/root/vmlinuz" "$half/vmlinuz"
    cp --dereference "$half/root/initrd.img" "$half/initrd"
    printf 'camdock-vm %s\n' "$(cut -d ' ' -f 1,2 "$half/root/etc/ssh/ssh_host_ed25519_key.pub")" >"$half/known_hosts"
    truncate --size "$disk" "$half/disk.img"
    mkfs.ext4 -q -d "$half/root" "$half/disk.img" >>"$half/log" 2>&1
    rm -rf --one-file-system "$half/root"
    mv "$half" "$place"
    echo "vm.sh: $name made in $((EPOCHSECONDS - began)) s, $(du --human-readable --summarize "$place" | cut -f 1)" >&2
  fi
  touch "$place"
  echo "$place"
done
