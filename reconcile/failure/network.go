package failure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// fromNetwork reads why there was no answer.
func fromNetwork(err error, object Object) *Error {
	request, isRequest := errors.AsType[*url.Error](err)
	server, inner := "the API server", err
	if isRequest {
		server, inner = serverOf(request), request.Err
	}
	if plugin, found := strings.CutPrefix(inner.Error(), "getting credentials: "); found {
		plugin, _, _ = strings.Cut(plugin, "\n") // general advice follows
		return New(Unauthorized, object, "no credentials for %s: %s", server, plugin).
			WithHint("Run that program by hand: it may be missing, or need a login.")
	}
	what, hint := unreachable(inner)
	if what == "" && !isRequest {
		return New(InternalError, object, "%s", inner)
	}
	if what == "" {
		what = "cannot be reached: " + inner.Error()
	}
	return New(ClusterUnreachable, object, "%s %s", server, what).WithHint("%s", hint).With("server", server)
}

// serverOf is the server of a request's URL.
func serverOf(request *url.Error) string {
	parsed, err := url.Parse(request.URL)
	if err != nil || parsed.Host == "" {
		return "the API server"
	}
	return parsed.Scheme + "://" + parsed.Host
}

// unreachable says what went wrong on the way to a server, as a sentence whose
// subject is the server, and what to do. It is empty for any other error.
func unreachable(err error) (what, hint string) {
	if what := untrusted(err); what != "" {
		return what, "Put the authority that signed it into certificate-authority-data of the kubeconfig's cluster entry."
	}
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		if lookup.IsNotFound {
			return "cannot be found: there is no host " + lookup.Name, "Check the server's name in the kubeconfig, and whether a VPN is needed."
		}
		return "cannot be found: looking up " + lookup.Name + " failed", "Check this machine's DNS."
	}
	if tlsRecord := (tls.RecordHeaderError{}); errors.As(err, &tlsRecord) || errors.Is(err, http.ErrSchemeMismatch) {
		return "does not speak TLS", "Check the port: something else than an API server answers there."
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "did not answer in time", "Is it running, and can it be reached from here? A slow one gets more time by --request-timeout."
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refuses the connection", "Is it running? sandboxctl contexts shows which server each context means."
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err) || utilnet.IsProbableEOF(err) {
		return "broke the connection off", "What was under way may have been done or not: plan again to see."
	}
	return "", ""
}

// untrusted says what is wrong with a server's certificate, or nothing.
func untrusted(err error) string {
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return "shows a certificate for another name: " + host.Error()
	}
	if certificate, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return "shows a certificate that is not valid: " + certificate.Error()
	}
	if verification, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "shows a certificate that is not trusted: " + verification.Err.Error()
	}
	return ""
}
