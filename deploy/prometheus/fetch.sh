#!/usr/bin/env bash
# Usage: deploy/prometheus/fetch.sh FOLDER
# Puts prometheus and promtool into FOLDER: those on the PATH, else of Debian's or Ubuntu's package, without root.
set -euo pipefail
into=$1
mkdir -p "$into"
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
  for name in prometheus promtool; do
    [[ $(command -v $name) -ef $into/$name ]] || ln -sf "$(command -v $name)" "$into"
  done
  exit
fi
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
  echo "prometheus and promtool are neither on the PATH nor to be had here by apt-get" >&2
  exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# apt knows the package's hash from signed lists; they are fetched anew where the system has none yet.
own=(-qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o "APT::Sandbox::User=")
apt-get "${own[@]:0:1}" -o "APT::Sandbox::User=" download prometheus 2>/dev/null || {
  mkdir -p lists/partial cache/archives/partial
  apt-get "${own[@]}" update
  apt-get "${own[@]}" download prometheus
}
dpkg-deb -x prometheus_*.deb unpacked
cd - >/dev/null
install -m 755 "$work/unpacked/usr/bin/prometheus" "$work/unpacked/usr/bin/promtool" "$into"
