package msl

import (
	"sync"
	"time"
)

// A trustedReply answers in a network of trusted services, whose issuer is the server:
// under the token of the request, or as the server's own entity. The header is a draft
// until the answer begins.
type trustedReply struct {
	*ResponseWriter
	us      identification
	drafted int64          // when the header was made, in seconds since 1970
	drafts  sync.WaitGroup // headers being protected concurrently with other work
}

// prepare makes the draft of the header.
func (r *trustedReply) prepare() error {
	if err := r.identify(); err != nil {
		return err
	}
	if r.gives.push || r.answerable() != nil {
		return nil
	}
	now := r.gives.server.Issuer.now()
	r.drafted = now.Unix()
	return r.makeHead(now)
}

// identify sets how the answer identifies its sender: a request with a master token is
// answered with that token, even if the answer delivers a new one.
func (r *trustedReply) identify() (err error) {
	if d := r.gives.delivered; d != nil {
		key := d.key()
		key.Rand = r.gives.server.Issuer.Rand
		r.us = identification{token: d.Token, protector: key}
		return nil
	}
	if r.in.token == nil {
		r.us, err = localIdentification(r.ctx, r.gives.server.Local, r.gives.server.Issuer.Rand)
		return err
	}
	key := r.in.sender.Opener.(SymmetricKey) // of the session, which opened the request
	key.Rand = r.gives.server.Issuer.Rand
	r.us = identification{token: r.in.token, protector: key}
	return nil
}

// makeHead protects a header with everything the application has requested so far. With
// the keys of a session, which have just opened the request and so exist, this continues
// after makeHead returns if a device is waited for, and is left to the first chunk if
// calls take long.
func (r *trustedReply) makeHead(now time.Time) error {
	h, err := r.gives.header()
	if err != nil {
		return err
	}
	if r.us.token != nil {
		h.sender = r.gives.server.Name
	}
	if r.us.token != nil && !r.in.handshake {
		switch {
		case waits(r.us.protector):
			r.payload.head = r.draftLater(h, now)
			return nil
		case shares(r.us.protector):
			r.payload.head = r.draftShared(h, now)
			return nil
		}
	}
	head, told, err := r.protect(r.us, &h, now)
	if err == nil {
		r.payload.head = &draft{head: head, told: told}
	}
	return err
}

// draftLater protects a header concurrently with other work.
func (r *trustedReply) draftLater(h header, now time.Time) *draft {
	us := r.us
	head := newDraft(func() (*sealedHeader, func(), error) { return r.protect(us, &h, now) })
	r.drafts.Go(head.run)
	return head
}

// draftShared leaves the protection of a header to the call for the first chunk.
func (r *trustedReply) draftShared(h header, now time.Time) *draft {
	us := r.us
	return &draft{
		protect: func() (*sealedHeader, func(), error) { return r.protect(us, &h, now) },
		shared: &sharedHead{key: us.protector.(SymmetricKey), inside: h.encoded(now),
			take: func(data, signature []byte) (*sealedHeader, func()) {
				return us.sealedAs("headerdata", data, signature), r.sends(us, &h, now)
			}},
	}
}

// protect returns the header to send, and the function that reports it then.
func (r *trustedReply) protect(us identification, h *header, now time.Time) (*sealedHeader, func(), error) {
	head, err := us.seal(h, now)
	if err != nil {
		return nil, nil, err
	}
	return head, r.sends(us, h, now), nil
}

// sends returns the function that reports the header when it is sent, or nil if none is
// wanted.
func (r *trustedReply) sends(us identification, h *header, now time.Time) func() {
	return r.in.watch.sends(h, now, us, r.gives.server.Local, r.identity())
}

// identity is the name under which the answer is sent.
func (r *trustedReply) identity() string {
	if r.us.token != nil {
		return r.gives.server.Name
	}
	return r.us.local.Identity
}

// answerable refuses an answer that cannot be protected as required.
func (r *trustedReply) answerable() error {
	withKeys, us := r.gives.masterToken() != nil, r.gives.server.Local
	if r.Authenticated && !withKeys && !us.Authenticates() {
		return fail(ErrResponseRequiresIntegrityProtection, "answer", nil)
	}
	if r.Encrypted && !withKeys && !us.Encrypts() {
		return fail(ErrResponseRequiresEncryption, "answer", nil)
	}
	return nil
}

// start finishes the header, and protects the payload with the keys of an issued session,
// or like the header.
func (r *trustedReply) start() error {
	if err := r.answerable(); err != nil {
		return err
	}
	r.gives.uncompressed = r.Uncompressed
	if err := r.finishHead(); err != nil {
		return err
	}
	r.payload.protector = r.us.protector
	if issued := r.gives.session; issued != nil {
		r.gives.server.sessions.offer(issued)
		key := issued.key()
		key.Rand = r.gives.server.Issuer.Rand
		r.payload.protector = key
	}
	r.payload.compression, r.payload.ctx = r.gives.compression(), r.ctx
	return nil
}

// maxDraftAge is how many seconds old a draft may be: the peer estimates the server's
// clock from its timestamp.
const maxDraftAge = 2

// finishHead remakes the header if the application has requested more than the draft
// contains, or the draft is old. An old draft is better than none.
func (r *trustedReply) finishHead() error {
	now := r.gives.server.Issuer.now()
	usable := r.payload.head != nil && !r.gives.wishes()
	if usable && now.Unix()-r.drafted < maxDraftAge {
		return nil
	}
	if !usable {
		return persist(r.ctx, func() error { return r.makeHead(now) })
	}
	old := r.payload.head
	if r.makeHead(now) == nil { // if this fails, now or later, the old draft is sent
		r.payload.head.instead = old
	}
	return nil
}

// halfDuplex asks the transport.
func (r *trustedReply) halfDuplex() bool {
	peer, ok := r.payload.out.(halfDuplex)
	return ok && peer.HalfDuplex()
}

// asksFirst reports false: the server never needs a handshake first.
func (r *trustedReply) asksFirst() bool { return false }

// end does nothing.
func (r *trustedReply) end() error { return nil }

func (r *trustedReply) release() {
	r.drafts.Wait()
	r.us.release()
	if !r.begun() || r.payload.err != nil {
		r.gives.withdraw()
	}
	r.gives.release()
}
