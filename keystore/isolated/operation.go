package isolated

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An operation is the first byte of a request.
type operation byte

const (
	opGenerate operation = iota + 1
	opLookup
	opSeal
	opUnseal
	opImport
	opWrapFor
	opRandom
	opCreate
	opList
	opDestroy
	opLive
	opShutdown
	opClose
	opEncrypt
	opDecrypt
	opSum
	opWrap
	opWrapData
	opUnwrap
	opReveal
	opSign
	opDecryptPair
	opRefresh
	opSealWith
	opOpenAll
	opSealAll
	opRenewPIN
	opReseal
	opDoubt
)

// repeatable reports whether an operation that may have been made can be made again:
// what it leaves in the child is gone with the child.
func (o operation) repeatable() bool { return o != opCreate && o != opDestroy && o != opShutdown }

// isPartOfMessage reports whether an operation is one of those that each message needs.
func (o operation) isPartOfMessage() bool {
	switch o {
	case opEncrypt, opDecrypt, opSum, opOpenAll, opSealAll:
		return true
	}
	return false
}

// The first byte of an answer.
const (
	succeeded = iota
	failed
)

// A keyForm is a key as it is told to the parent.
type keyForm struct {
	handle    uint64
	algorithm keystore.Algorithm
	public    []byte // of a pair, PKIX
}

func (m message) key(k keyForm) message {
	return m.number(k.handle).number(uint64(k.algorithm)).bytes(k.public)
}

func (f *fields) key() keyForm {
	return keyForm{f.number(), keystore.Algorithm(f.number()), f.bytes()}
}

// publicBytes returns the public half of a key, or nothing.
func publicBytes(k keystore.Key) ([]byte, error) {
	pair, ok := k.(interface{ Public() crypto.PublicKey })
	if !ok {
		return nil, nil
	}
	return x509.MarshalPKIXPublicKey(pair.Public())
}

// parsePublic reads what publicBytes returned.
func parsePublic(der []byte) (crypto.PublicKey, error) {
	if len(der) == 0 {
		return nil, nil
	}
	switch public, err := x509.ParsePKIXPublicKey(der); public := public.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return public, nil
	default:
		return nil, fmt.Errorf("%w: public key: %v", errMalformed, err)
	}
}
