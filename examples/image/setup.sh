#!/bin/sh
# Makes the user and the folder that sandboxes work in. The Dockerfile runs it,
# and so does the image of the test cluster, which is built without Docker.
set -eu

useradd --uid 1000 --user-group --create-home --shell /bin/bash agent
install --directory --owner=agent --group=agent /workspace
