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

// A TargetState is what is known about a target.
type TargetState struct {
	Target string    // as configured, without a password
	Tried  time.Time // when a message or a health check was last sent there; zero means not yet
	Err    error     // why it could not be reached then, or failed its health check, or nil
}

// States returns what is known about each target.
func (u *Upstream) States() (all []TargetState) {
	if u.open() != nil {
		return nil
	}
	for _, p := range u.places {
		p.mu.Lock()
		all = append(all, TargetState{p.String(), p.tried, p.why})
		p.mu.Unlock()
	}
	return all
}
