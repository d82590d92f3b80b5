package internet

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
)

// servePackages serves a Debian repository with one package, hello-sandbox,
// which has one file.
func servePackages(ctx context.Context, certificate tls.Certificate) error {
	const control = "Package: hello-sandbox\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@packages.test>\nDescription: says hello\n"
	deb, err := debianPackage(control, "./usr/share/hello-sandbox", "hello from a package\n")
	if err != nil {
		return err
	}
	index := fmt.Sprintf("%sFilename: ./hello-sandbox_1.0_all.deb\nSize: %d\nSHA256: %x\n\n", control, len(deb), sha256.Sum256(deb))
	mux := http.NewServeMux()
	serve := func(path string, content []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(content) // the client is gone: nothing to tell it
		})
	}
	serve("/debian/Packages", []byte(index))
	serve("/debian/hello-sandbox_1.0_all.deb", deb)
	return serveHandler(ctx, Packages, 443, &tls.Config{Certificates: []tls.Certificate{certificate}}, mux)
}

// debianPackage is a binary package (deb(5)): an ar archive of a version and
// two tar archives.
func debianPackage(control, path, content string) ([]byte, error) {
	meta, err := tarOf("./control", control)
	if err != nil {
		return nil, err
	}
	data, err := tarOf(path, content)
	if err != nil {
		return nil, err
	}
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, member := range []struct {
		name    string
		content []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", meta}, {"data.tar", data}} {
		fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", len(member.content))
		deb.Write(member.content)
		if len(member.content)%2 == 1 {
			deb.WriteByte('\n')
		}
	}
	return deb.Bytes(), nil
}

func tarOf(path, content string) ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	if err := archive.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := archive.Write([]byte(content)); err != nil {
		return nil, err
	}
	err := archive.Close()
	return out.Bytes(), err
}
