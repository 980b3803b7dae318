package msl

import (
	"context"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// waits reports whether a protector or opener waits for a device, so that two concurrent
// uses take about as long as one.
func waits(key any) bool {
	switch k := key.(type) {
	case SymmetricKey:
		return isSlow(k.MAC)
	case KeyRing:
		return len(k) > 0 && waits(k[0])
	case serviceRing:
		return waits(k.ring())
	}
	return false
}

// isSlow reports whether a key is in a device that is waited for.
func isSlow(k keystore.Key) bool {
	timed, ok := k.(keystore.Timed)
	return ok && timed.Latency() >= pace.Slow
}

// both does two things, concurrently if that means waiting for a device.
func both(slow bool, one, two func()) {
	if !slow {
		one()
		two()
		return
	}
	var wait sync.WaitGroup
	wait.Go(two)
	one()
	wait.Wait()
}

// A draft is the header of an answer, from the moment it can be protected until it is
// sent.
type draft struct {
	protect func() (head *sealedHeader, told func(), err error)
	instead *draft        // to be sent if this one cannot be protected; may be nil
	done    chan struct{} // closed when protection succeeded or failed; nil if protected from the start
	head    *sealedHeader
	told    func() // called when it is sent; may be nil
	err     error
	shared  *sharedHead // to be protected in the same call as the first chunk, or nil
}

// A sharedHead is the inside of a header that is protected together with a chunk.
type sharedHead struct {
	key    SymmetricKey
	inside []byte
	take   func(data, signature []byte) (head *sealedHeader, told func())
}

// newDraft makes a draft that run protects with protect.
func newDraft(protect func() (head *sealedHeader, told func(), err error)) *draft {
	return &draft{protect: protect, done: make(chan struct{})}
}

func (d *draft) run() {
	defer close(d.done)
	d.head, d.told, d.err = d.protect()
}

// sealWith encrypts and signs the inside of a chunk, and of the header if that shares the
// call.
func (d *draft) sealWith(mem *wire.Memory, p Protector, inside []byte) (data, signature []byte, err error) {
	if d == nil || d.shared == nil {
		return sealIn(mem, p, inside)
	}
	k, j, ok := jointly(p)
	if !ok || k.Encryption != d.shared.key.Encryption || k.MAC != d.shared.key.MAC {
		return sealIn(mem, p, inside)
	}
	own := wire.NewMemory()
	defer own.Free()
	if err := d.shared.key.sealShared(j, part{own, d.shared.inside}, part{mem, inside}); err != nil {
		return nil, nil, err
	}
	d.head, d.told = d.shared.take(own.Content, own.Tag)
	d.shared = nil
	return mem.Content, mem.Tag, nil
}

// wait returns the draft to send once it is protected. A failed protection is retried,
// since the application may have acted on the request by now.
func (d *draft) wait(ctx context.Context) (*draft, error) {
	switch {
	case d.done != nil:
		<-d.done
	case d.shared != nil: // no chunk came first
		d.shared = nil
		d.head, d.told, d.err = d.protect()
	}
	switch {
	case d.err == nil:
		return d, nil
	case d.instead != nil:
		return d.instead.wait(ctx)
	}
	d.err = persist(ctx, func() (err error) {
		d.head, d.told, err = d.protect()
		return err
	})
	return d, d.err
}
