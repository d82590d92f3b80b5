// Package image carries this folder's Dockerfile and what it copies inside the
// program, so that sandboxctl can build the sandbox image where there is no
// checkout.
package image

import (
	"embed"
	"io/fs"
)

//go:embed Dockerfile packages.txt setup.sh
var files embed.FS

// Context returns the folder that the sandbox image is built from: the
// Dockerfile at its root, and the files beside it.
func Context() fs.FS { return files }
