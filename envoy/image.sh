#!/usr/bin/env bash
# Makes a container image as an OCI image layout, without a container engine and without root.
#
#   envoy/image.sh store DIR [BINARY]   dcr-store on nothing but the C library that it was built with, CA certificates, and
#                                       a user of its own (10001)
#   envoy/image.sh filter DIR [WASM]    the filter alone, as /plugin.wasm: what Istio and Envoy Gateway pull
#   envoy/image.sh --root KIND DIR …    the files of the image alone, for envoy/Dockerfile
#
# The same input gives the same image, to the byte. Into a registry or an engine:
#   skopeo copy oci:DIR docker://REGISTRY/NAME:TAG    or    tar -C DIR -c . | docker load
set -euo pipefail

root_only=
[[ ${1:-} != --root ]] || { root_only=yes && shift; }
kind=${1:?usage: envoy/image.sh store|filter DIR [FILE]} dir=${2:?usage: envoy/image.sh store|filter DIR [FILE]}

fail() {
    printf 'image: %s\n' "$1" >&2
    exit 1
}

[[ $(uname -s) == Linux ]] || fail 'images hold programs for Linux: run this there, or build envoy/Dockerfile with an engine'
tar --version 2>/dev/null | grep -q GNU || fail 'GNU tar is missing'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"
chmod 755 "$root"

# A filter runs on any machine; whoever pulls it by a platform means this one.
architecture=x86_64
[[ $kind == filter ]] || architecture=$(uname -m)
case $architecture in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
esac

case $kind in
store)
    binary=${3:-target/release/dcr-store}
    [[ -x $binary ]] || fail "$binary is missing: run make build"
    install -D -m 755 "$binary" "$root/usr/local/bin/dcr-store"
    # What the dynamic linker would load, at the paths where it looks; the linker itself is among them.
    libraries=$(ldd "$binary" | grep -o '/[^ ]*') || fail "$binary is no program of this machine's"
    while read -r library; do
        install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done <<<"$libraries"
    for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem; do
        [[ ! -r $certificates ]] || break
    done
    [[ -r $certificates ]] || fail 'there are no CA certificates: install ca-certificates'
    install -D -m 644 "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
    printf 'dcr-edge:x:10001:10001::/var/lib/dcr-edge:/nonexistent\n' >"$root/etc/passwd"
    printf 'dcr-edge:x:10001:\n' >"$root/etc/group"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
    mkdir -p "$root/var/lib/dcr-edge" "$root/tmp"
    chmod 755 "$root/etc" "$root/var" "$root/var/lib"
    chmod 700 "$root/var/lib/dcr-edge"
    chmod 1777 "$root/tmp"
    owned=(var/lib/dcr-edge)
    config='"User":"10001:10001","ExposedPorts":{"8081/tcp":{}},"Volumes":{"/var/lib/dcr-edge":{}},"Env":["PATH=/usr/local/bin","DATABASE_URL=sqlite:///var/lib/dcr-edge/dcr.db","SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],"Entrypoint":["/usr/local/bin/dcr-store"],"Cmd":["serve","--listen","0.0.0.0:8081"]'
    name=dcr-store
    ;;
filter)
    wasm=${3:-target/wasm32-wasip1/release/dcr_edge.wasm}
    [[ -r $wasm ]] || fail "$wasm is missing: run make build"
    install -m 644 "$wasm" "$root/plugin.wasm"
    owned=()
    config=
    name=dcr-edge-filter
    ;;
*) fail "there is no image $kind: expected store or filter" ;;
esac

if [[ -n $root_only ]]; then
    cp -a "$root" "$dir"
    exit 0
fi

# --- the layer ------------------------------------------------------------------------------------------------------

pack=(tar --directory "$root" --sort=name --mtime=@0 --numeric-owner --format=ustar --create --file "$work/layer.tar")
"${pack[@]}" --owner=0 --group=0 ${owned[@]+"${owned[@]/#/--exclude=./}"} .
for path in ${owned[@]+"${owned[@]}"}; do
    tar --directory "$root" --mtime=@0 --numeric-owner --format=ustar --owner=10001 --group=10001 --append \
        --file "$work/layer.tar" "./$path"
done

blobs=$work/layout/blobs/sha256
mkdir -p "$blobs"

digest_of() {
    sha256sum "$1" | cut -d' ' -f1
}

# Moves FILE among the blobs and prints its descriptor of MEDIA_TYPE.
blob() {
    local file=$1 media_type=$2 digest size
    digest=$(digest_of "$file")
    size=$(stat -c %s "$file")
    mv "$file" "$blobs/$digest"
    printf '"mediaType":"%s","digest":"sha256:%s","size":%s' "$media_type" "$digest" "$size"
}

uncompressed=$(digest_of "$work/layer.tar")
gzip -9 --no-name --stdout "$work/layer.tar" >"$work/layer.tar.gz"
layer=$(blob "$work/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)

# --- config, manifest, index ----------------------------------------------------------------------------------------

printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"envoy/image.sh %s"}]}' \
    "$architecture" "$config" "$uncompressed" "$kind" >"$work/config.json"
config=$(blob "$work/config.json" application/vnd.oci.image.config.v1+json)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{%s},"layers":[{%s}],"annotations":{"org.opencontainers.image.title":"%s","org.opencontainers.image.licenses":"Apache-2.0"}}' \
    "$config" "$layer" "$name" >"$work/manifest.json"
manifest=$(blob "$work/manifest.json" application/vnd.oci.image.manifest.v1+json)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"docker.io/library/%s:latest","org.opencontainers.image.ref.name":"latest"}}]}' \
    "$manifest" "$architecture" "$name" >"$work/layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"

# Complete or not at all.
mkdir -p "$(dirname "$dir")"
rm -rf "$dir.new"
mv "$work/layout" "$dir.new"
rm -rf "$dir"
mv "$dir.new" "$dir"
printf '%s: %s, %s bytes compressed\n' "$dir" "$name" "$(du -bs "$dir/blobs" | cut -f1)"
