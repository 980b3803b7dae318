package mslhttp

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"sync"
)

const (
	// sessionMark begins this package's entry in the extra data of a session, which
	// others may use, too.
	sessionMark = "msl-hsm tls session\x00\x01"

	maxDenied      = 1 << 16 // sessions denied by name: a few megabytes
	clientSessions = 64      // servers whose sessions a client keeps
)

// A sessionName names a TLS session and all sessions resumed from it. crypto/tls seals
// tickets, so nobody can forge names.
type sessionName struct {
	era uint64
	id  [16]byte
}

func (n sessionName) extra() []byte {
	return append(binary.BigEndian.AppendUint64([]byte(sessionMark), n.era), n.id[:]...)
}

func sessionNameIn(extra [][]byte) (n sessionName, found bool) {
	for _, e := range extra {
		if rest, ok := bytes.CutPrefix(e, []byte(sessionMark)); ok && len(rest) == 8+len(n.id) {
			n.era = binary.BigEndian.Uint64(rest)
			copy(n.id[:], rest[8:])
			return n, true
		}
	}
	return n, false
}

// A denyList remembers the sessions that ended with a fatal alert. When it is full, a new
// era begins, and no session of an earlier era can be resumed: the list is bounded, yet
// no session becomes valid again. The cost is one full handshake for every client.
type denyList struct {
	mu     sync.Mutex
	era    uint64
	denied map[[16]byte]struct{}
	max    int64 // zero means maxDenied
}

func (d *denyList) deny(n sessionName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.era != d.era {
		return // already denied
	}
	if int64(len(d.denied)) >= cmp.Or(d.max, maxDenied) {
		d.era++
		d.denied = nil
		return
	}
	if d.denied == nil {
		d.denied = map[[16]byte]struct{}{}
	}
	d.denied[n.id] = struct{}{}
}

func (d *denyList) allows(n sessionName) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, denied := d.denied[n.id]
	return n.era == d.era && !denied
}

func (d *denyList) name() (n sessionName) {
	rand.Read(n.id[:]) // it never fails
	d.mu.Lock()
	defer d.mu.Unlock()
	n.era = d.era
	return n
}

// A ticketed is the session of one connection of a server.
type ticketed struct {
	base *tls.Config // whose keys seal tickets
	deny *denyList

	mu    sync.Mutex
	name  sessionName
	named bool
	given uint64 // tickets of this connection
}

// wrap puts the session's name into its ticket.
func (t *ticketed) wrap(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.named {
		t.name, t.named = t.deny.name(), true
	}
	t.given++
	s.Extra = append(s.Extra, t.name.extra())
	return t.base.EncryptTicket(cs, s)
}

// unwrap opens a ticket, unless its session is denied: then a full handshake follows.
func (t *ticketed) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	s, err := t.base.DecryptTicket(ticket, cs)
	if err != nil || s == nil {
		return nil, err
	}
	name, found := sessionNameIn(s.Extra)
	if !found || !t.deny.allows(name) {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.name, t.named = name, true
	return s, nil
}

// tickets is how many tickets this connection issued.
func (t *ticketed) tickets() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.given
}

// forget denies the session.
func (t *ticketed) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.named {
		t.deny.deny(t.name)
	}
}

// A cached records the sessions that one connection of a client used or received, in a
// cache shared by all connections.
type cached struct {
	shared tls.ClientSessionCache

	mu        sync.Mutex
	keys      map[string]bool
	forgotten bool
}

// Get implements tls.ClientSessionCache.
func (c *cached) Get(key string) (*tls.ClientSessionState, bool) {
	c.note(key)
	return c.shared.Get(key)
}

// Put implements tls.ClientSessionCache. Sessions that arrive after a fatal alert are not
// kept.
func (c *cached) Put(key string, s *tls.ClientSessionState) {
	if !c.note(key) {
		c.shared.Put(key, s)
	}
}

func (c *cached) note(key string) (forgotten bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys == nil {
		c.keys = map[string]bool{}
	}
	c.keys[key] = true
	return c.forgotten
}

func (c *cached) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten = true
	for key := range c.keys {
		c.shared.Put(key, nil)
	}
}
