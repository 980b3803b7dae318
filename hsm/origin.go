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
func (c *connection) originOf(session uint) *origin {
	o, _ := c.origins.Load(session)
	own, _ := o.(*origin)
	return own
}

// retire takes the session out of the pool, now or when it is taken next.
func (c *connection) retire(o *origin) {
	if o == nil {
		return
	}
	o.retired.Store(true)
	if !c.mod.gate.tryEnter() {
		return
	}
	defer c.mod.gate.leave()
	if !c.isClosed() {
		c.sweepOut(c.anchors, func(own *session) bool { return own.origin == o })
	}
}

// detach leaves the session, which lost its place in the pool, to its objects.
func (c *connection) detach(o *origin) {
	c.graves.keep(o)
	o.detached.Store(true)
	if o.objects.Load() == 0 && o.closed.CompareAndSwap(false, true) {
		c.graves.closeLater(o.session)
	}
}
