package hsm

import (
	"errors"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// tell logs that the device was lost, or is back: once each. That waiting does not bring it back is new.
func (r *recovery) tell(err error) {
	if errors.Is(err, keystore.ErrClosed) {
		return
	}
	if err == nil {
		r.lost.Worked(time.Now(), func() { r.log.Info("device back") })
		return
	}
	_, before := r.lost.Last()
	news := lasts(err) && !lasts(before)
	r.lost.Failed(err, func() { news = true })
	if news {
		r.log.Error("device lost", "error", err)
	}
}

// lasts reports whether only somebody who acts helps against why a device is lost: it refuses the PIN, or
// is another one.
func lasts(err error) bool {
	return errors.Is(err, keystore.ErrPIN) && !passing(err) || errors.Is(err, errReplaced)
}
