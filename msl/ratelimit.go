package msl

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// An answerLimiter limits how many answers are signed for unauthenticated senders, by
// source, or how many refusals for authenticated ones, by entity: each may cost a
// private-key operation, while garbage and recorded messages are free to send.
type answerLimiter struct {
	perSource int
	total     *rate.Limiter

	mu      sync.Mutex
	sources map[string]*rate.Limiter
	swept   time.Time
}

// maxSources bounds the table; beyond it new sources share only the total.
const maxSources = 10000

func newAnswerLimiter(total, perSource int) *answerLimiter {
	return &answerLimiter{
		perSource: perSource,
		total:     rate.NewLimiter(rate.Limit(total), total),
		sources:   map[string]*rate.Limiter{},
	}
}

// allow takes one answer off the bounds. The source's own comes first, so that
// one source cannot use up the total.
func (a *answerLimiter) allow(source string) bool {
	if l := a.source(source); l != nil && !l.Allow() {
		return false
	}
	return a.total.Allow()
}

func (a *answerLimiter) source(source string) *rate.Limiter {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l, ok := a.sources[source]; ok {
		return l
	}
	a.sweep(time.Now())
	if len(a.sources) >= maxSources {
		return nil
	}
	l := rate.NewLimiter(rate.Limit(a.perSource), a.perSource)
	a.sources[source] = l
	return l
}

// sweep drops the sources that have their whole allowance again, now and then.
func (a *answerLimiter) sweep(now time.Time) {
	if now.Sub(a.swept) < time.Second {
		return
	}
	a.swept = now
	for source, l := range a.sources {
		if l.TokensAt(now) >= float64(a.perSource) {
			delete(a.sources, source)
		}
	}
}

// mayRefuse takes a refusal off the limits. An authenticated sender has an allowance of
// its own, so that strangers behind the same address cannot use it up: one for all the
// profiles or suffixes that an entity may choose.
func (s *Server) mayRefuse(ctx context.Context, source string, sender Sender) bool {
	if sender.Authenticated {
		return s.proven.allow(s.payer(ctx, sender.Identity).name)
	}
	return s.answers.allow(source)
}
