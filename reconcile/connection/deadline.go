package connection

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// deadline is a transport that gives a server some time to begin its answer. A
// timeout of the whole request, as rest.Config has it, would end watches too;
// and one that every caller had to think of would be forgotten.
type deadline struct {
	next    http.RoundTripper
	timeout time.Duration
}

var errLate = errors.New("no answer in time")

// RoundTrip fails with ClusterUnreachable when there is no answer in time.
func (d *deadline) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	timer := time.AfterFunc(d.timeout, func() { cancel(errLate) })
	response, err := d.next.RoundTrip(request.WithContext(ctx))
	timer.Stop()
	if context.Cause(ctx) == errLate {
		if err == nil {
			response.Body.Close()
		}
		server := request.URL.Scheme + "://" + request.URL.Host
		return nil, failure.New(failure.ClusterUnreachable, failure.Object{}, "%s did not answer within %s", server, d.timeout).
			WithHint("Is it running, and can it be reached from here? A slow one gets more time by --request-timeout.").
			With("server", server).Because(err)
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	response.Body = &endingBody{response.Body, cancel}
	return response, nil
}

// endingBody ends the request's context when the body is closed, and not
// before: the context governs the reading too.
type endingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *endingBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
