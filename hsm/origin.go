package hsm

import "sync/atomic"

// An origin is an anchor session as what the objects that it made die with. Where a
// module may have made one that nobody can name, the session retires: it makes no
// more, and is closed when the last of the others is gone.
type origin struct {
	session  openSession
	objects  atomic.Int64 // that are alive
	retired  atomic.Bool
	detached atomic.Bool // no place in a pool has the session any more
	closed   atomic.Bool
}

func (o *origin) isRetired() bool { return o != nil && o.retired.Load() }

// add counts objects, and reports whether the caller has to close the session.
func (o *origin) add(n int64) bool {
	return o != nil && o.objects.Add(n) == 0 && o.detached.Load() && o.closed.CompareAndSwap(false, true)
}

// originOf is that of a session which the caller has.
func (s *Store) originOf(session uint) *origin {
	o, _ := s.origins.Load(session)
	own, _ := o.(*origin)
	return own
}

// retire takes the session out of the pool, now or when it is taken next.
func (s *Store) retire(o *origin) {
	if o == nil {
		return
	}
	o.retired.Store(true)
	if !s.mod.gate.tryEnter() {
		return
	}
	defer s.mod.gate.leave()
	if !s.isClosed() {
		s.sweepOut(s.anchors, func(own *session) bool { return own.origin == o })
	}
}

// detach leaves the session, which lost its place in the pool, to its objects.
func (s *Store) detach(o *origin) {
	s.graves.keep(o)
	o.detached.Store(true)
	if o.objects.Load() == 0 && o.closed.CompareAndSwap(false, true) {
		s.closeLater(o.session)
	}
}
