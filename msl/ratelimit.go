package msl

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// An answerLimiter limits how many answers are signed for unauthenticated senders, by
// source, or how many refusals for authenticated ones, by entity: each may cost a
// private-key operation, while garbage and recorded messages cost nothing to send.
type answerLimiter struct {
	perSource int
	total     *rate.Limiter

	mu      sync.Mutex
	sources map[string]*rate.Limiter
	swept   time.Time
}

// maxSources bounds the table; beyond it, new sources share the total.
const maxSources = 10000

func newAnswerLimiter(total, perSource int) *answerLimiter {
	return &answerLimiter{
		perSource: perSource,
		total:     rate.NewLimiter(rate.Limit(total), total),
		sources:   map[string]*rate.Limiter{},
	}
}

// allow takes one answer off the limits, the source's own first, so that one source
// cannot use up the total.
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

// sweep occasionally drops the sources whose whole allowance is restored.
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

// mayRefuse takes a refusal off the limits. An authenticated sender has its own
// allowance, so that strangers at the same address cannot use it up; all profiles or
// suffixes that an entity may choose share it.
func (s *Server) mayRefuse(ctx context.Context, source string, sender Sender) bool {
	if sender.Authenticated {
		return s.proven.allow(s.payer(ctx, sender.Identity).name)
	}
	return s.answers.allow(source)
}
