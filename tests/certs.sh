#!/bin/bash
# SPDX-License-Identifier: ISC
# Certificates for tests, made in DIRECTORY: ca, server and client by the
# commands of docs/security.md, word by word; and others that are wrong in one
# way each.
set -euo pipefail
source=${FARBLK_SOURCE:-$(dirname "$0")/..}
commands=$(sed -n '/^```sh certificates$/,/^```$/p' "$source/docs/security.md" |
    grep -v '^```')
[ -n "$commands" ] || { echo "no commands in docs/security.md" >&2; exit 1; }
[ "$(grep -c '^openssl' <<<"$commands")" -eq 3 ] || exit 1
cd "$1"
eval "$commands"

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
leaf=(-addext basicConstraints=critical,CA:FALSE)
names=(-addext subjectAltName=DNS:localhost,IP:127.0.0.1)
# Another CA of the same name, and certificates of it.
openssl req -x509 "${key[@]}" -subj "/CN=my farblk CA" -days 9 \
    -keyout other-ca.key -out other-ca.pem
for who in server client; do
    openssl req -x509 -CA other-ca.pem -CAkey other-ca.key "${key[@]}" \
        -subj /CN=$who -days 9 "${leaf[@]}" "${names[@]}" \
        -keyout other-$who.key -out other-$who.pem
done
# Of another name; an address in words instead of as an address.
openssl req -x509 -CA ca.pem -CAkey ca.key "${key[@]}" -subj /CN=localhost \
    -days 9 "${leaf[@]}" -addext subjectAltName=DNS:elsewhere.example,IP:10.9.8.7 \
    -keyout name.key -out name.pem
openssl req -x509 -CA ca.pem -CAkey ca.key "${key[@]}" -subj /CN=127.0.0.1 \
    -days 9 "${leaf[@]}" -keyout words.key -out words.pem
openssl req -x509 -CA ca.pem -CAkey ca.key "${key[@]}" -subj /CN=127.0.0.1 \
    -days 9 "${leaf[@]}" -addext subjectAltName=DNS:127.0.0.1 \
    -keyout dns.key -out dns.pem
# A client's certificate that is no server's.
openssl req -x509 -CA ca.pem -CAkey ca.key "${key[@]}" -subj /CN=usage \
    -days 9 "${leaf[@]}" "${names[@]}" -addext extendedKeyUsage=clientAuth \
    -keyout usage.key -out usage.pem
# A leaf that signs another.
openssl req -x509 -CA server.pem -CAkey server.key "${key[@]}" -subj /CN=leaf \
    -days 9 "${leaf[@]}" "${names[@]}" -keyout leaf.key -out leaf-only.pem
cat leaf-only.pem server.pem >leaf.pem
# RSA, and a password.
openssl req -x509 -CA ca.pem -CAkey ca.key -newkey rsa:2048 -nodes \
    -subj /CN=rsa -days 9 "${leaf[@]}" "${names[@]}" -keyout rsa.key -out rsa.pem
openssl pkey -in server.key -aes128 -passout pass:secret -out password.key
# Over since yesterday.
for who in server client; do
    openssl req -new "${key[@]}" -subj /CN=expired "${names[@]}" \
        -keyout expired-$who.key -out expired-$who.csr
    openssl x509 -req -in expired-$who.csr -copy_extensions copy -CA ca.pem \
        -CAkey ca.key -days -1 -out expired-$who.pem
done
chmod 600 ./*.key
