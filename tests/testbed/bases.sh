#!/usr/bin/env bash
# The base images that the Dockerfiles start from, on a machine that reaches Debian's packages but no image registry.
#
#   tests/testbed/bases.sh trixie bookworm     debian:trixie-slim and debian:bookworm-slim; root, mmdebstrap, an engine
#
# An image of that name that is there already, pulled or built, is used as it is, for 14 days where it came from here.
# Like the published ones: the essential packages alone, no documentation, no translations, no apt lists, and the apt
# settings that leave nothing behind in a layer. What this machine's administrator trusts beside Debian's authorities
# (/usr/local/share/ca-certificates) is trusted in there too, so that builds reach the package registries this machine
# reaches; the Dockerfiles know nothing of it.
# CAMDOCK_TEST_MIRROR: another Debian mirror.
set -euo pipefail

cache=${CAMDOCK_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/camdock}/bases
mirror=${CAMDOCK_TEST_MIRROR:-} # empty: Debian's own, as mmdebstrap knows it
recipe=$(sed -n '/^recipe=/,$p' "$0" | cksum | cut -d ' ' -f 1)

if [ $# = 0 ]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi

settings() { # like the published image's: apt leaves neither archives nor caches in a layer, and suggests nothing
  cat <<'END'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Apt::AutoRemove::SuggestsImportant "false";
END
}

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
for name in "$@"; do
  image=debian:$name-slim
  from=$(docker image inspect --format '{{index .Config.Labels "camdock.testbed"}}' "$image" 2>/dev/null || echo absent)
  tar=$cache/$name-$recipe.tar
  find "$cache" -name "$name-*.tar" \( -not -name "$name-$recipe.tar" -o -mtime +14 \) -delete
  if [ "$from" = "" ] || { [ "$from" = "$recipe" ] && [ -f "$tar" ]; }; then
    echo "Base images: $image is here"
    continue
  fi
  if [ ! -f "$tar" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v mmdebstrap >/dev/null; then
      echo "Base images: docker pull $image, or make it here as root with mmdebstrap (apt install mmdebstrap)" >&2
      exit 1
    fi
    began=$EPOCHSECONDS
    log=$(mktemp)
    hooks=$(mktemp -d)
    settings >"$hooks/docker-clean"
    trust=()
    shopt -s nullglob
    for file in /usr/local/share/ca-certificates/*.crt; do
      trust+=(--customize-hook="copy-in $file /usr/local/share/ca-certificates")
    done
    # shellcheck disable=SC2016  # $1 is mmdebstrap's: the folder of the new system
    # In a session of its own: one that fails hangs up on its whole process group, which would be us, make and all above.
    if ! setsid --wait mmdebstrap --quiet --variant=minbase \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
      --customize-hook='mkdir -p "$1/usr/local/share/ca-certificates"' "${trust[@]}" \
      --customize-hook="copy-in $hooks/docker-clean /etc/apt/apt.conf.d" \
      --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/ldconfig/* "$1"/var/log/*' \
      "$name" "$cache/.half.tar" ${mirror:+"$mirror"} >"$log" 2>&1; then
      echo "Base images: mmdebstrap could not make $name:" >&2
      tail -n 20 "$log" >&2
      rm -rf "$log" "$hooks" "$cache/.half.tar"
      exit 1
    fi
    rm -rf "$log" "$hooks"
    mv "$cache/.half.tar" "$tar"
    echo "Base images: $name made in $((EPOCHSECONDS - began)) s"
  fi
  trusts=(--change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt'
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt')
  compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null || trusts=()
  docker import --change 'CMD ["bash"]' --change "LABEL camdock.testbed=$recipe" "${trusts[@]}" "$tar" "$image" >/dev/null
  echo "Base images: $image imported"
done
