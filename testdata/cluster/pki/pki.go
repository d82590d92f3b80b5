// Package pki makes the certificates and kubeconfigs of a test cluster. The
// keys protect nothing but the cluster on this machine.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// validity is longer than any test cluster lives.
const validity = 10 * 365 * 24 * time.Hour

// Authority signs the certificates of a cluster and writes them to a folder:
// for each name, NAME.crt and NAME.key.
type Authority struct {
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Subject is whom a certificate is for.
type Subject struct {
	// CommonName and Organization are the user and group of a client.
	CommonName, Organization string
	// Names and Addresses are those of a server.
	Names     []string
	Addresses []netip.Addr
}

// NewAuthority makes an authority and writes its certificate (ca.crt, ca.key)
// to dir, which must exist.
func NewAuthority(dir, name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(Subject{CommonName: name})
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	authority := &Authority{dir: dir, certificate: certificate, key: key}
	return authority, authority.write("ca", der, key)
}

// Path is the file of a certificate ("crt") or key ("key") of this authority.
func (a *Authority) Path(name, kind string) string {
	return filepath.Join(a.dir, name+"."+kind)
}

// Issue writes a certificate for subject, for clients and servers alike, and
// its key.
func (a *Authority) Issue(name string, subject Subject) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := newTemplate(subject)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("signing the certificate of %s: %w", name, err)
	}
	return a.write(name, der, key)
}

// Kubeconfig issues a client certificate for subject and writes a kubeconfig
// with it, NAME.kubeconfig, for the API server at url.
func (a *Authority) Kubeconfig(name, url string, subject Subject) (path string, err error) {
	if err := a.Issue(name, subject); err != nil {
		return "", err
	}
	encoded := map[string]string{}
	for _, file := range []string{a.Path("ca", "crt"), a.Path(name, "crt"), a.Path(name, "key")} {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		encoded[file] = base64.StdEncoding.EncodeToString(content)
	}
	path = a.Path(name, "kubeconfig")
	return path, os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: sandboxctl-test
contexts:
- name: sandboxctl-test
  context: {cluster: sandboxctl-test, user: %s}
clusters:
- name: sandboxctl-test
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
`, name, url, encoded[a.Path("ca", "crt")], name, encoded[a.Path(name, "crt")], encoded[a.Path(name, "key")]), 0o600)
}

func newTemplate(subject Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: subject.CommonName},
		NotBefore:    now.Add(-time.Hour), // a clock that is set back must not end the cluster
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     subject.Names,
	}
	if subject.Organization != "" {
		template.Subject.Organization = []string{subject.Organization}
	}
	for _, address := range subject.Addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	return template, nil
}

func (a *Authority) write(name string, certificate []byte, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(a.Path(name, "key"), block, 0o600); err != nil {
		return err
	}
	block = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	return os.WriteFile(a.Path(name, "crt"), block, 0o644)
}
