package hsm

import (
	"crypto/subtle"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// newDoubts bounds how often a store asks, because of data that does not open, whether its
// token works: anyone can send such data.
func newDoubts() *rate.Limiter { return rate.NewLimiter(rate.Every(time.Second), 3) }

// Doubt finds out whether the token is at fault for a tag that was not expected, see
// [keystore.Doubter]. It always computes the tag again, and up to about once a second also
// checks that the handle still is the key, and that the token does a known computation
// correctly. Then it computes the tag once more: a token that was at fault may have recovered
// during the checks.
func (k macKey) Doubt(data, sum []byte) error {
	err := k.makes(data, sum)
	if err == nil && k.store.doubts.Allow() {
		if err = k.isStill(data, sum); err == nil {
			err = k.store.recovery.check()
		}
		if err == nil {
			err = k.makes(data, sum)
		}
	}
	return k.store.recovery.explain(err)
}

// makes checks that the tag of data is sum.
func (k macKey) makes(data, sum []byte) error {
	again, err := k.Sum(data)
	if err == nil && subtle.ConstantTimeCompare(again, sum) != 1 {
		err = errMismatch
	}
	return err
}

// isStill checks that the handle is that of the key: a provisioned key makes its mark, and a
// sealed one computes the same when it is unsealed again. If not, the handle is dropped, but
// not the object, which is another key's.
func (k macKey) isStill(data, sum []byte) error {
	if k.label != "" {
		return k.store.rings.prove(k.label, k.version)
	}
	k.mu.Lock()
	had, sealed := k.ref, k.wrapped != nil
	k.mu.Unlock()
	if !sealed {
		return nil
	}
	fresh := object{store: k.store, algorithm: k.algorithm, locked: true}
	if err := k.store.unwrapSealed(&fresh, k.object); err != nil {
		return err
	}
	tag, err := macKey{&fresh}.Sum(data)
	err = errors.Join(err, fresh.Close())
	if err == nil && subtle.ConstantTimeCompare(tag, sum) != 1 {
		k.mu.Lock()
		if k.ref == had {
			k.store.graves.count(had, -1)
			k.ref = ref{}
		}
		k.mu.Unlock()
		err = errMismatch
	}
	return err
}

var _ keystore.Doubter = macKey{}
