#!/bin/sh
# An authority of its own and a certificate for 127.0.0.1, for the tests of TLS settings only: sh make.sh
set -e
new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500"
openssl req -x509 $new -keyout authority.key -out authority.pem -subj "/CN=cleanplate test authority"
printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > leaf.ext
openssl req $new -keyout key.pem -out leaf.csr -subj "/CN=127.0.0.1"
openssl x509 -req -in leaf.csr -CA authority.pem -CAkey authority.key -CAcreateserial -days 36500 -extfile leaf.ext -out cert.pem
rm -f authority.key authority.srl leaf.ext leaf.csr
