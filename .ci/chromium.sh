#!/bin/sh
# The browser tests want a Chromium. Where none is found and apt can install one, it is installed;
# anything else is left alone, and the browser tests say that they were skipped.
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "test: installing Chromium for the browser tests"
    { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
        || echo "test: Chromium could not be installed; browser tests will be skipped"
fi
exit 0
