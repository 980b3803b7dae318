package msl

import (
	"bytes"
	"sync/atomic"

	"github.com/msl-hsm/msl-hsm/msl/internal/keycache"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// A server's memory of tokens relies only on what their issuer signed. A message under
// a token that its sender has merely seen leaves no memory: the server keeps a session
// only after a message has used it.

// Sessions read messages under the tokens of an issuer, and cache the opened sessions.
type sessions struct {
	issuer   *Issuer
	shared   bool // also open tokens of the reference stacks
	handedOn bool // what is opened, to the server that replaces this one

	*opened
	*lookups
}

// Opened are the remembered sessions.
type opened struct {
	cache *keycache.Cache[tokenHash, *Session]
	since atomic.Uint64 // sessions opened earlier are not used
}

// Lookups counts the messages whose session was in the cache, and was not.
type lookups struct{ hits, misses atomic.Uint64 }

func newSessions(issuer *Issuer, shared bool, size int) *sessions {
	stale := func(v *Session) bool { return v.Token.expired(issuer.now()) }
	return &sessions{
		issuer: issuer, shared: shared || issuer.Shared, lookups: &lookups{},
		opened: &opened{cache: keycache.New[tokenHash](size, stale)},
	}
}

// opens reports whether s opens the same tokens as former, with the same keys.
func (s *sessions) opens(former *sessions) bool {
	own, was := s.issuer, former.issuer
	return own.Versions != nil && own.Versions == was.Versions && own.Store == was.Store && s.shared == former.shared
}

// close forgets the sessions, unless another server goes on with them.
func (s *sessions) close() {
	if !s.handedOn {
		s.cache.Close()
	}
}

// findSession returns the remembered session of a master token, or the token.
func (s *sessions) findSession(o wire.Object) (*Session, *MasterToken, error) {
	hash, err := hashMaster(o)
	if err != nil {
		return nil, nil, err
	}
	if session, ok := s.remembered(hash); ok {
		s.hits.Add(1)
		t := *session.Token
		t.sealed = signedToken{raw: bytes.Clone(o.Raw()), known: hash}
		return session, &t, nil
	}
	s.misses.Add(1)
	t, err := parseMasterToken(o)
	return nil, t, err
}

// remembered finds a session opened since the last Forget.
func (s *sessions) remembered(hash tokenHash) (*Session, bool) {
	session, ok := s.cache.Get(hash)
	if ok && session.opened < s.since.Load() {
		session.Release() // an earlier message had remembered it again
		return nil, false
	}
	return session, ok
}

// Forget makes the remembered sessions be opened again from their devices' tokens, with
// the current key versions: a session whose keys are gone ends. Messages in flight keep
// theirs.
func (s *Server) Forget() {
	s.init()
	s.sessions.since.Add(1)
	s.sessions.cache.Clear()
}

func hashMaster(o wire.Object) (tokenHash, error) {
	mem := wire.NewMemory()
	defer mem.Free()
	sealed, decoded, err := readSignedToken(mem.Scratch[:0], o, opMaster, ErrMasterTokenTokenDataMissing)
	mem.Scratch = decoded
	if err != nil {
		return tokenHash{}, err
	}
	return sealed.hash(), nil
}

// openSession opens the session of a master token; used remembers it later.
func (s *sessions) openSession(t *MasterToken) (*Session, error) {
	since := s.since.Load()
	session, err := s.issuer.open(t, s.shared)
	if err == nil {
		session.opened = since
	}
	return session, err
}

// used remembers a session that a message has used. An expired one is not worth it: it
// can only be renewed, once.
func (s *sessions) used(t *MasterToken, session *Session) {
	if !t.expired(s.issuer.now()) {
		s.cache.Put(t.sealed.hash(), session)
	}
}

// gone forgets a session whose keys no longer exist, so that the token is opened again,
// or refused.
func (s *sessions) gone(t *MasterToken) { s.cache.Delete(t.sealed.hash()) }

// offer remembers the session of a token that is about to be sent, so that its
// first use costs no unsealing.
func (s *sessions) offer(session *Session) {
	t := session.Token
	kept := &Session{
		Token: &MasterToken{RenewalWindow: t.RenewalWindow, Expiration: t.Expiration,
			SequenceNumber: t.SequenceNumber, SerialNumber: t.SerialNumber},
		Identity: session.Identity, IssuerData: session.IssuerData, Keys: session.Keys,
		issuerVersion: session.issuerVersion, opened: session.opened,
	}
	s.cache.Offer(t.sealed.hash(), kept)
}

// withdraw forgets the session of a token that was not sent.
func (s *sessions) withdraw(session *Session) { s.cache.Delete(session.Token.sealed.hash()) }

// openUser opens a user ID token, or finds it among those of its session. The user is
// recorded in the message.
func (s *sessions) openUser(in *incoming, o wire.Object) (*UserIDToken, error) {
	sealed, err := parseSealedUser(o)
	if err != nil {
		return nil, err
	}
	hash := sealed.hash()
	if in.session != nil {
		if known, ok := in.session.knownUser(hash); ok {
			t := known.token
			t.sealed, in.user = sealed, known.user
			return &t, nil
		}
	}
	t, err := sealed.user()
	if err != nil {
		return nil, err
	}
	if in.user, err = s.issuer.OpenUser(t); err != nil {
		return nil, err
	}
	if in.session != nil {
		in.session.rememberUser(hash, knownUser{*t, in.user})
	}
	return t, nil
}

// ServerStats are figures about a server at one moment.
type ServerStats struct {
	Sessions         int    // master tokens remembered
	Hits, Misses     uint64 // messages whose master token was remembered, and was not
	Unproven, Proven int64  // bytes of memory in use, as [Limits] counts them
}

// Stats returns the current figures.
func (s *Server) Stats() ServerStats {
	s.init()
	return ServerStats{
		Sessions: s.sessions.cache.Len(), Hits: s.sessions.hits.Load(), Misses: s.sessions.misses.Load(),
		Unproven: s.memory.unproven.inUse(), Proven: s.memory.proven.inUse(),
	}
}

// OpenMasterToken opens a master token of the server's issuer, or finds its session
// among the remembered ones. It does not check whether the token is expired or its
// entity revoked, and it does not remember the session, since the sender of the token
// need not be its holder. The caller releases the session.
func (s *Server) OpenMasterToken(t *MasterToken) (*Session, error) {
	s.init()
	if session, ok := s.sessions.remembered(t.sealed.hash()); ok {
		return session, nil
	}
	t, err := t.whole()
	if err != nil {
		return nil, err
	}
	return s.sessions.openSession(t)
}
