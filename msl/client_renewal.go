package msl

import (
	"context"
	"sync"
	"time"
)

// A renewalLock lets one message at a time ask for new tokens. Waiters get the token that
// the holder ended with. Release closes a channel to wake every waiter, so that none can
// miss it.
type renewalLock struct {
	mu   sync.Mutex
	held *renewal // nil if it is free
}

// A renewal is one period of holding the lock.
type renewal struct {
	done  chan struct{}
	token *MasterToken // the token it ended with, or nil; set before done is closed
}

// acquire takes the lock if it is free. If it is not, it returns the renewal
// under way and false.
func (l *renewalLock) acquire() (*renewal, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held != nil {
		return l.held, false
	}
	l.held = newRenewal()
	return l.held, true
}

func newRenewal() *renewal { return &renewal{done: make(chan struct{})} }

// release publishes the token that r ended with.
func (l *renewalLock) release(r *renewal, token *MasterToken) {
	l.mu.Lock()
	if l.held == r {
		l.held = nil
	}
	l.mu.Unlock()
	r.token = token
	close(r.done)
}

// wait returns when r has ended, or with the context's error.
func (r *renewal) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A need says whether a message must, or may, bring new tokens.
type need struct{ must, may bool }

// renewalNeed decides from the request and the tokens at hand. now is the estimated clock
// of the issuer, unknown before the first answer.
func renewalNeed(req *Request, entity LocalEntity, t *tokens, forced, clockKnown bool, now time.Time) need {
	mt, uit := t.master(), t.user(req.User)
	p := protectionOf(entity, mt)
	userWithoutToken := req.provesUser(uit)
	return need{
		must: forced || !req.fits(p) ||
			mt != nil && clockKnown && mt.expired(now) ||
			userWithoutToken && !p.hidesUser() ||
			req.RequestTokens && (mt == nil || userWithoutToken),
		may: mt == nil || userWithoutToken ||
			!clockKnown || mt.renewable(now) ||
			uit != nil && uit.renewable(now),
	}
}

// A protection says how an outgoing message is protected.
type protection struct{ encrypted, authenticated, session bool }

// protectionOf returns the protection of a message by entity, under mt unless that is nil.
func protectionOf(entity LocalEntity, mt *MasterToken) protection {
	if mt != nil {
		return protection{true, true, true}
	}
	return protection{encrypted: entity.Encrypts(), authenticated: entity.Authenticates()}
}

// hidesUser reports whether a message with protection p may carry the authentication data
// of a user.
func (p protection) hidesUser() bool { return p.encrypted && p.authenticated }

// fits reports whether a message with protection p may carry the application data.
func (r *Request) fits(p protection) bool {
	return (p.encrypted || !r.Encrypted) && (p.authenticated || !r.Authenticated) && (p.session || !r.NonReplayable)
}
