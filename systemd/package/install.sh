#!/bin/sh
# Installs Pondwatch from this folder, without network. Nothing is installed unless every file is the one the
# publisher signed.
#   sh install.sh [--key PUBLISHER.pem] [--verify] [--venv FOLDER]
#     --key     the publisher's public key, got by another way than this folder; without: the folder's own,
#               which finds damage and no malice
#     --verify  look and install nothing
#     --venv    no Debian package but a venv in FOLDER, for other systems with Python 3.11
set -eu
here=$(cd "$(dirname "$0")" && pwd)
key="" verify="" venv=""
while [ $# -gt 0 ]; do
    case "$1" in
        --key) key=${2:?--key needs a file}; shift 2 ;;
        --venv) venv=${2:?--venv needs a folder}; shift 2 ;;
        --verify) verify=yes; shift ;;
        *) echo "install.sh: $1 is not known; see the first lines of install.sh" >&2; exit 2 ;;
    esac
done
start=$(date +%s)
command -v openssl >/dev/null || { echo "install.sh: openssl is missing: the signature cannot be verified; install Debian's package openssl" >&2; exit 3; }
if [ -z "$key" ]; then
    key=$here/signer.pem
    echo "no --key: the signature is held against the folder's own key, which finds damage and no malice"
fi
openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$here/manifest.sha256" -sigfile "$here/manifest.sig" >/dev/null 2>&1 ||
    { echo "install.sh: manifest.sha256 is not signed by $key: get the folder anew" >&2; exit 1; }
(cd "$here" && sha256sum --check --strict --quiet manifest.sha256) ||
    { echo "install.sh: the files above are not those that were signed: get the folder anew" >&2; exit 1; }
# a file nobody signed could be what pip or dpkg picks up
surplus=$(cd "$here" && find . -type f | sed 's,^\./,,' | grep -vxE 'manifest\.(sha256|sig)|signer\.pem' |
    while read -r name; do grep -qxF "$(sha256sum "$name")" manifest.sha256 || echo "$name"; done)
[ -z "$surplus" ] || { echo "install.sh: nobody signed $surplus: remove it" >&2; exit 1; }
echo "every file is as signed"
[ -z "$verify" ] || exit 0
if [ -n "$venv" ]; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-index --find-links "$here/wheelhouse" --require-hashes --no-deps -r "$here/requirements.lock"
    "$venv/bin/python" -m pip install --quiet --no-index --no-deps "$here"/pondwatch-*.whl
else
    [ "$(id -u)" = 0 ] || { echo "install.sh: run it as root, or with --venv FOLDER" >&2; exit 3; }
    # apt and not dpkg: what the package depends on comes from where this system gets its packages, and if that
    # is nowhere, nothing is half installed
    apt-get install --yes --no-install-recommends "$here"/pondwatch_*.deb
fi
echo "installed in $(($(date +%s) - start)) s"
