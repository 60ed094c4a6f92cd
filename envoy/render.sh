#!/usr/bin/env bash
# Prints envoy.yaml with every marked value replaced by the environment variable that the mark names.
#
#   HTTP_PORT=10000 … envoy/render.sh [FILE]
#
# A mark is a comment of one word in capitals: `port_value: 10000 # HTTP_PORT`. A mark without a variable is an
# error, so that no configuration goes out half rendered. Values are written as quoted YAML, save numbers.
# TRUSTED_HOPS is 0 if it is not set. Without GEOIP_CITY_DATABASE and GEOIP_ASN_DATABASE the lines from `# begin GEOIP`
# to `# end GEOIP` are left out, and so are the signals that come from there. STORE_ENDPOINTS (`HOST:PORT …`) takes the
# place of STORE_HOST and STORE_PORT if it is set: the lines of STORE_ENDPOINT are repeated for each. Without STORE_CA the
# lines from `# begin STORE_TLS` to `# end STORE_TLS` are left out; with it STORE_NAME is dcr-store if it is not set.
set -euo pipefail

template=${1:-$(dirname "$0")/envoy.yaml}
mark='[A-Z][A-Z0-9_]*'
[[ -r $template ]] || {
    printf 'render: %s is not readable\n' "$template" >&2
    exit 1
}

TRUSTED_HOPS=${TRUSTED_HOPS:-0}
leave_out=
if [[ -z ${GEOIP_CITY_DATABASE:-} ]]; then
    leave_out='/^ *# begin GEOIP/,/^ *# end GEOIP/d; /"signal_sources":/s/, "country", "subdivision", "asn"//'
    # Signals that nothing sets must not be named as if something did.
    if sed "$leave_out; /^ *#/d" "$template" | grep -q '"\(country\|subdivision\|asn\)"'; then
        printf 'render: %s names signals of the databases that are not there: in signal_sources write them on one line, last, as "country", "subdivision", "asn"\n' \
            "$template" >&2
        exit 1
    fi
fi
if [[ -z ${STORE_CA:-} ]]; then
    leave_out+="${leave_out:+; }/^ *# begin STORE_TLS/,/^ *# end STORE_TLS/d"
fi
STORE_NAME=${STORE_NAME:-dcr-store}
if [[ ${GEOIP_CITY_DATABASE:+set} != "${GEOIP_ASN_DATABASE:+set}" ]]; then
    printf 'render: one of GEOIP_CITY_DATABASE and GEOIP_ASN_DATABASE is set without the other: set both or none\n' >&2
    exit 1
fi

text=$(sed "$leave_out" "$template")
read -ra endpoints <<<"${STORE_ENDPOINTS:-}"
if ((${#endpoints[@]} > 0)); then
    begin='# begin STORE_ENDPOINT' end='# end STORE_ENDPOINT'
    if [[ $text != *"$begin"*"$end"* ]]; then
        printf 'render: %s has no lines from %s to %s for STORE_ENDPOINTS\n' "$template" "$begin" "$end" >&2
        exit 1
    fi
    block=$(sed -n "/$begin/,/$end/{/$begin/d; /$end/d; p}" <<<"$text")
    text=$(
        sed "/$begin/,\$d" <<<"$text"
        for endpoint in "${endpoints[@]}"; do
            # The port comes after the last colon: an IPv6 address needs no brackets.
            if ! [[ $endpoint =~ ^[A-Za-z0-9._:-]+:[0-9]{1,5}$ ]]; then
                printf 'render: STORE_ENDPOINTS has %q in it, which is no HOST:PORT\n' "$endpoint" >&2
                exit 1
            fi
            printf '%s\n' "$block" | sed "s|^\([^#]*: \).* # STORE_HOST\$|\1'${endpoint%:*}'|
                s|^\([^#]*: \).* # STORE_PORT\$|\1${endpoint##*:}|"
        done
        sed "1,/$end/d" <<<"$text"
    )
fi

script=
while read -r name; do
    value=${!name:-}
    if [[ -z $value ]]; then
        printf 'render: %s has a mark for %s, and no variable of that name is set\n' "$template" "$name" >&2
        exit 1
    fi
    if [[ $value == *[[:cntrl:]]* ]]; then
        printf 'render: %s has a control character in it\n' "$name" >&2
        exit 1
    fi
    # Quoted for YAML first, then for sed.
    [[ $value =~ ^[0-9]+$ ]] || value="'${value//\'/\'\'}'"
    value=$(printf '%s' "$value" | sed 's/[\\&|]/\\&/g')
    script+="s|^\([^#]*: \).* # $name\$|\1$value|"$'\n'
done < <(sed -n "s/^[^#]*: .* # \($mark\)\$/\1/p" <<<"$text" | sort -u)
sed "$script" <<<"$text"
