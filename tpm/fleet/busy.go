package fleet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

const (
	busyTries   = 6                // per message
	longestWait = 30 * time.Second // that a server may ask for
)

// whenNotBusy repeats send while the server answers HTTP 503 with a time to come back, or
// the authority says that it is busy: they did not act on the message (RFC 9110 section
// 15.6.4). Each wait is longer than the last, and of random length, since many devices
// may have come at the same time. If a server asks for more than [longestWait], there are
// no more tries.
func whenNotBusy(ctx context.Context, send func() ([]byte, error)) (answer []byte, err error) {
	for try := range busyTries {
		answer, err = send()
		wait, busy := comeBack(answer, err)
		if !busy || wait > longestWait || try == busyTries-1 {
			break
		}
		wait *= time.Duration(try + 1)
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(wait + rand.N(wait+1)):
		}
	}
	return answer, err
}

// comeBack reports whether a server or its authority was busy, and after what time it
// wants to be asked again (RFC 9110 section 10.2.3).
func comeBack(answer []byte, err error) (after time.Duration, busy bool) {
	if err == nil {
		return time.Second, unread(answer)
	}
	var status *mslhttp.StatusError
	if !errors.As(err, &status) || status.Status != http.StatusServiceUnavailable {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(status.RetryAfter, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(status.RetryAfter)
	return max(time.Until(at), 0), err == nil
}

// unread reports whether an authority was too busy to look at a message: the answer is
// not about the device. An authority that is busy because too many devices wait for
// approval will still be busy a few seconds later.
func unread(answer []byte) bool {
	r, err := proof.Parse[proof.Result](answer, proof.TypeResult)
	return err == nil && r.ID == "" && r.State == proof.FaultWord(proof.ErrBusy)
}
