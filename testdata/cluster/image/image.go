// Package image writes container images as OCI archives, without a container
// engine. It never fetches one.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Image is an image of one layer.
type Image struct {
	// Reference is the full name under which the container runtime lists it.
	Reference string
	// Entrypoint, User and WorkingDir are as in the OCI image configuration.
	Entrypoint []string
	User       string
	WorkingDir string
	Env        []string
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write writes the image with the uncompressed tar file layer as its content
// to the archive at path. The layer is not compressed: the archive is only
// ever read on the machine that wrote it.
func (i Image) Write(path, layer string) error {
	layerBlob, err := describe(layer)
	if err != nil {
		return err
	}
	layerBlob.MediaType = "application/vnd.oci.image.layer.v1.tar"
	config, configBlob, err := encode("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": i.Entrypoint, "User": i.User, "WorkingDir": i.WorkingDir, "Env": i.Env,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return err
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	manifest, manifestBlob, err := encode(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": configBlob, "layers": []descriptor{layerBlob},
	})
	if err != nil {
		return err
	}
	// containerd names the imported image by this annotation.
	manifestBlob.Annotations = map[string]string{"io.containerd.image.name": i.Reference}
	index, _, err := encode("", map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifestBlob}})
	if err != nil {
		return err
	}

	return WriteTar(path, func(archive *tar.Writer) error {
		for _, file := range []struct {
			name    string
			content []byte
		}{
			{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
			{"index.json", index},
			{blobPath(manifestBlob), manifest},
			{blobPath(configBlob), config},
		} {
			if err := addBytes(archive, file.name, file.content); err != nil {
				return err
			}
		}
		return AddFile(archive, blobPath(layerBlob), layer, 0o644)
	})
}

// WriteTar writes a tar file that fill fills. The file appears whole or not at
// all.
func WriteTar(path string, fill func(*tar.Writer) error) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() {
		file.Close()
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	archive := tar.NewWriter(file)
	if err := fill(archive); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// AddFile adds the content of the file source to the archive as name.
func AddFile(archive *tar.Writer, name, source string, mode int64) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}

func addBytes(archive *tar.Writer, name string, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func blobPath(blob descriptor) string {
	return "blobs/sha256/" + blob.Digest[len("sha256:"):]
}

func encode(mediaType string, value any) ([]byte, descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return nil, descriptor{}, err
	}
	sum := sha256.Sum256(content)
	return content, descriptor{
		MediaType: mediaType,
		Digest:    "sha256:" + hex.EncodeToString(sum[:]),
		Size:      int64(len(content)),
	}, nil
}

func describe(path string) (descriptor, error) {
	file, err := os.Open(path)
	if err != nil {
		return descriptor{}, err
	}
	defer file.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, file)
	if err != nil {
		return descriptor{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return descriptor{Digest: "sha256:" + hex.EncodeToString(hash.Sum(nil)), Size: size}, nil
}
