package reconcile

import (
	"context"
	"net/http"
)

// The dynamic client does not tell 200 from 201, which is how the server says
// that an apply has created its object. withStatus has the transport note it.

type statusKey struct{}

// withStatus returns a context for one request, and where that request's
// status code will stand.
func withStatus(ctx context.Context) (context.Context, *int) {
	status := new(int)
	return context.WithValue(ctx, statusKey{}, status), status
}

func noteStatus(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if status, ok := request.Context().Value(statusKey{}).(*int); ok && err == nil {
			*status = response.StatusCode
		}
		return response, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }
