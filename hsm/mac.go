package hsm

import (
	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/internal/cbc"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type macKey struct{ *object }

// Sum computes the full tag. It never verifies in the token: modules answer a wrong tag
// differently, and one reports a broken device.
func (k macKey) Sum(data []byte) ([]byte, error) { return k.AppendSum(nil, data) }

// AppendSum appends what Sum returns to dst.
func (k macKey) AppendSum(dst, data []byte) ([]byte, error) {
	if k.algorithm == keystore.AESCMAC128 {
		return k.appendSum(dst, pkcs11.CKM_AES_CMAC, data, 16)
	}
	return k.appendSum(dst, pkcs11.CKM_SHA256_HMAC, data, 32)
}

func (k *object) sum(mechanism uint, data []byte, size int) ([]byte, error) {
	return k.appendSum(nil, mechanism, data, size)
}

func (k *object) appendSum(dst []byte, mechanism uint, data []byte, size int) ([]byte, error) {
	dst, out := cbc.Extend(dst, size)
	err := k.run(func(session, handle uint) error {
		clear(out) // it may be memory that had something else in it
		n, err := k.store.sign(session, handle, mechanism, data, out)
		return wrote("C_Sign", out, n, err)
	})
	if err != nil {
		return nil, k.store.recovery.ours(err)
	}
	return dst, nil
}
