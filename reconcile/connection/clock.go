package connection

import (
	"net/http"
	"sync"
	"time"
)

// clock compares the local clock with the server's, by its answers.
type clock struct {
	local func() time.Time

	mutex sync.Mutex // protects ahead
	ahead time.Duration
}

// slowAnswer is how long an answer may take that still says what time it is.
const slowAnswer = time.Second

// listening is a transport whose answers a clock hears.
type listening struct {
	next  http.RoundTripper
	clock *clock
}

func (l *listening) RoundTrip(request *http.Request) (*http.Response, error) {
	asked := l.clock.local()
	response, err := l.next.RoundTrip(request)
	if err == nil {
		l.clock.hear(response.Header.Get("Date"), asked)
	}
	return response, err
}

// hear takes in the Date of an answer to what was asked then.
func (c *clock) hear(date string, asked time.Time) {
	here := c.local()
	said, err := http.ParseTime(date)
	if err != nil || here.Sub(asked) > slowAnswer {
		return
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.ahead = here.Sub(said).Truncate(time.Second)
}

// skew is how much the local clock is ahead of the server's, to a second or two;
// 0 before the first answer.
func (c *clock) skew() time.Duration {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.ahead
}
