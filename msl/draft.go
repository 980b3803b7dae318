package msl

import (
	"context"
	"sync"

	"github.com/msl-hsm/msl-hsm/internal/pace"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// waits reports whether a protector or opener waits for a device, so that two uses of it
// at the same time take about as long as one.
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

// both does two things, at the same time where a device is waited for.
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

// A draft is the header of an answer, from when it can be protected until it is sent.
type draft struct {
	protect func() (head *sealedHeader, told func(), err error)
	instead *draft        // to be sent if this one cannot be protected; may be nil
	done    chan struct{} // closed when it was protected, or that failed; nil if it was from the beginning
	head    *sealedHeader
	told    func() // is called when it is sent; may be nil
	err     error
}

// newDraft makes a draft that run protects with protect.
func newDraft(protect func() (head *sealedHeader, told func(), err error)) *draft {
	return &draft{protect: protect, done: make(chan struct{})}
}

func (d *draft) run() error {
	defer close(d.done)
	d.head, d.told, d.err = d.protect()
	return d.err
}

// wait returns the draft to send when it is protected. What failed is tried again, since
// the application may have acted on the request by now.
func (d *draft) wait(ctx context.Context) (*draft, error) {
	if d.done != nil {
		<-d.done
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
