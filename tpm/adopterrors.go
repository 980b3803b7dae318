package tpm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// scheme says for which scheme or mode, and with which hash, a key is restricted, or returns "".
func scheme(p *tpm2.TPMTPublic) string {
	var raw []byte // an algorithm and, for some, a hash
	if parms, err := p.Parameters.RSADetail(); err == nil && p.Type == tpm2.TPMAlgRSA {
		raw = tpm2.Marshal(parms.Scheme)
	} else if parms, err := p.Parameters.ECCDetail(); err == nil && p.Type == tpm2.TPMAlgECC {
		raw = tpm2.Marshal(parms.Scheme)
	} else if parms, err := p.Parameters.KeyedHashDetail(); err == nil && p.Type == tpm2.TPMAlgKeyedHash {
		raw = tpm2.Marshal(parms.Scheme)
	} else if parms, err := p.Parameters.SymDetail(); err == nil && p.Type == tpm2.TPMAlgSymCipher {
		if mode, err := parms.Sym.Mode.AES(); err == nil {
			raw = []byte{byte(*mode >> 8), byte(*mode)}
		}
	}
	text, with := "", ", for "
	for ; len(raw) >= 2; raw = raw[2:] {
		name := algorithmName(tpm2.TPMAlgID(raw[0])<<8 | tpm2.TPMAlgID(raw[1]))
		if name == "" {
			break
		}
		text, with = text+with+name, " with "
	}
	if text != "" {
		text += ","
	}
	return text
}

// algorithmName returns the name of a scheme, mode or hash, or "".
func algorithmName(a tpm2.TPMAlgID) string {
	return map[tpm2.TPMAlgID]string{
		tpm2.TPMAlgRSASSA: "RSASSA", tpm2.TPMAlgRSAES: "RSAES", tpm2.TPMAlgRSAPSS: "RSAPSS", tpm2.TPMAlgOAEP: "OAEP",
		tpm2.TPMAlgECDSA: "ECDSA", tpm2.TPMAlgECDH: "ECDH", tpm2.TPMAlgECDAA: "ECDAA", tpm2.TPMAlgSM2: "SM2", tpm2.TPMAlgECSchnorr: "ECSCHNORR",
		tpm2.TPMAlgCTR: "CTR", tpm2.TPMAlgOFB: "OFB", tpm2.TPMAlgCBC: "CBC", tpm2.TPMAlgCFB: "CFB", tpm2.TPMAlgECB: "ECB",
		tpm2.TPMAlgHMAC: "HMAC", tpm2.TPMAlgXOR: "XOR",
		tpm2.TPMAlgSHA1: "SHA-1", tpm2.TPMAlgSHA256: "SHA-256", tpm2.TPMAlgSHA384: "SHA-384", tpm2.TPMAlgSHA512: "SHA-512",
	}[a]
}

// unopened says why no guess was right.
func (f *TSS2) unopened(guesses []bool) string {
	switch {
	case f.EmptyAuth:
		return "it has a password, although its file says that it has none; it must be the PIN of this store"
	case !slices.Contains(guesses, false):
		return "its file says that it has a password, which must be the PIN of this store; if it has none, import it without the PIN"
	}
	return "it has a password, which must be the PIN of this store"
}

// unloaded says why the TPM did not load or import the key of a key file.
func unloaded(err error) error {
	switch {
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return stray(err)
	case wrongAuth(err):
		return fmt.Errorf("tpm: TSS2 key: its parent has a password, which this store does not have: %w", errors.ErrUnsupported)
	}
	return fmt.Errorf("tpm: TSS2 key: %w", err)
}

// stray is the error for a key that the TPM does not load.
func stray(err error) error {
	return &uselessError{"the file belongs to another TPM, or to this one before it was cleared, or is damaged, or its parent is another than it says " +
		"(then make the parent persistent, and the file again)", err, keystore.ErrForeign}
}

// A uselessError says why the key of a key file is of no use, and what the TPM answered,
// without the advice on that, which is for the keys of the store.
type uselessError struct {
	why       string
	err, kind error
}

func (e *uselessError) Error() string {
	var answer *Error
	code := strings.TrimPrefix(e.err.Error(), "tpm: ")
	if errors.As(e.err, &answer) {
		code = answer.name()
	}
	return "tpm: TSS2 key: " + e.why + ": " + code
}

func (e *uselessError) Unwrap() []error { return []error{e.err, e.kind} }
