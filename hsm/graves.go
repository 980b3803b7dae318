package hsm

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// graves are session objects that should be gone, and may not be: their
// destruction failed, or the module said that it did not make them, or that it
// does not know them. They go by their CKA_ID, which no two objects share, so that
// nothing else is ever destroyed in their place: a handle may be given again.
type graves struct {
	mu      sync.Mutex
	ids     []string
	known   int // of them, those that were seen
	digging bool
}

// seenMark begins the identifier of an object that was seen. No identifier of
// newID begins so.
const seenMark = "+"

const (
	maxGraves  = 10000
	digTime    = 200 * time.Millisecond
	longestDig = time.Second
)

// newID names a session object.
func (s *Store) newID() string {
	return s.name + string(binary.BigEndian.AppendUint64(nil, s.made.Add(1)))
}

// bury notes an object to be destroyed by and by. Where nobody has seen it there
// may be none.
func (s *Store) bury(id string, seen bool) {
	g := &s.graves
	g.mu.Lock()
	defer g.mu.Unlock()
	if id == "" || len(g.ids) == maxGraves {
		return
	}
	if seen {
		g.known, id = g.known+1, seenMark+id
	}
	g.ids = append(g.ids, id)
	if !g.digging {
		g.digging = true
		go s.dig()
	}
}

// forget is for a new life, in which no object of the old one is left.
func (g *graves) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids, g.known = nil, 0
}

func (g *graves) next() (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ids) == 0 {
		g.digging = false
		return "", false
	}
	return g.ids[0], true
}

func (g *graves) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known
}

// gone takes an object off the list.
func (g *graves) gone(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.ids {
		if g.ids[i] == id {
			g.ids = append(g.ids[:i], g.ids[i+1:]...)
			if strings.HasPrefix(id, seenMark) {
				g.known--
			}
			return
		}
	}
}

// dig destroys what is on the list until nothing is left.
func (s *Store) dig() {
	pause := digTime
	for {
		id, more := s.graves.next()
		if !more {
			return
		}
		if s.exhume(id) == nil {
			s.graves.gone(id)
			pause = digTime
			continue
		}
		select {
		case <-s.done:
			return
		case <-time.After(pause):
			pause = min(2*pause, longestDig)
		}
	}
}

// exhume destroys the object with an identifier, if there is one.
func (s *Store) exhume(id string) error {
	return s.on(s.sessions, 0, func(session uint, _ uint64) error {
		found, err := s.find(session, template{}.flag(pkcs11.CKA_TOKEN, false).add(pkcs11.CKA_ID, []byte(strings.TrimPrefix(id, seenMark))))
		if err != nil {
			return err
		}
		for _, h := range found {
			if err := s.destroy(session, h); err != nil {
				return err
			}
		}
		return nil
	})
}
