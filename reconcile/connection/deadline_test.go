package connection

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentpane/sandboxctl/reconcile/failure"
)

// server is a transport whose server begins to answer after a while, and goes
// on answering for an hour.
type server struct{ begins time.Duration }

func (s server) RoundTrip(request *http.Request) (*http.Response, error) {
	select {
	case <-request.Context().Done():
		return nil, request.Context().Err()
	case <-time.After(s.begins):
		return &http.Response{StatusCode: http.StatusOK, Body: body{request}}, nil
	}
}

type body struct{ request *http.Request }

func (b body) Read([]byte) (int, error) {
	select {
	case <-b.request.Context().Done():
		return 0, b.request.Context().Err()
	case <-time.After(time.Hour):
		return 0, io.EOF
	}
}

func (body) Close() error { return nil }

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.example:6443/api", nil)
		if err != nil {
			t.Fatal(err)
		}

		begun := time.Now()
		_, err = (&deadline{server{time.Hour}, time.Minute}).RoundTrip(request)
		if took := time.Since(begun); took != time.Minute || failure.CodeOf(err) != failure.ClusterUnreachable ||
			!strings.Contains(err.Error(), "https://api.example:6443 did not answer within 1m0s") {
			t.Errorf("a slow server: got %v after %s", err, took)
		}

		response, err := (&deadline{server{time.Second}, time.Minute}).RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(response.Body); err != nil {
			t.Errorf("a long answer that began in time: %v", err)
		}
		response.Body.Close()
		if _, err := response.Body.Read(nil); err == nil {
			t.Error("the request's context outlives its body")
		}

		_, err = (&deadline{failing{}, time.Minute}).RoundTrip(request)
		if !errors.Is(err, errBroken) {
			t.Errorf("a broken transport: got %v", err)
		}
	})
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errBroken }
