package mslhttp

import (
	"net/http"
	"time"
)

// An UpstreamCall is a request to a service, for metrics.
type UpstreamCall struct {
	Target string        // as configured, without a password
	Status int           // of the response, or 0 if there was none
	Took   time.Duration // until the response began
	Err    error
}

func callOf(p *place, r *http.Response, took time.Duration, err error) UpstreamCall {
	c := UpstreamCall{Target: p.String(), Took: took, Err: err}
	if err == nil {
		c.Status = r.StatusCode
	}
	return c
}

// Fit returns how many targets are usable, and the names of those that cannot be reached
// or fail their health check.
func (u *Upstream) Fit() (fit int, unfit []string) {
	if u.open() != nil {
		return 0, nil
	}
	for _, p := range u.places {
		if p.fit(time.Now()) {
			fit++
		} else {
			unfit = append(unfit, p.String())
		}
	}
	return fit, unfit
}
