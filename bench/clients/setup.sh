#!/bin/sh
# Installs the generators that bench/clients/run.ts drives into a folder ($1, as --work of run.ts). Java 17 must be there.
set -eu
tools=${1:-/tmp/modelpress-clients}/tools
mkdir -p "$tools"
cd "$tools"
python3 -m venv venv
venv/bin/pip -q install openapi-generator-cli==7.26.0 openapi-python-client==0.29.1 datamodel-code-generator==0.89.0 \
  httpx pydantic python-dateutil urllib3 typing_extensions attrs
[ -f package.json ] || npm init -y >/dev/null
npm install --no-audit --no-fund @hey-api/openapi-ts@0.99.0 typescript@5.9.3 esbuild
# What Go and Java clients import, from Debian, for machines that reach neither the Go proxy nor Maven.
if command -v apt-get >/dev/null; then
  apt-get install -y golang-go golang-gopkg-validator.v2-dev libgeronimo-annotation-1.3-spec-java libhttpclient-java libhttpmime-java
fi
