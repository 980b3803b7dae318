package failurelog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func TestClassify(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want Incident // without a kind: not to be reported
	}{
		"nothing":      {nil, Incident{}},
		"network":      {errors.New("dial tcp: connection refused"), Incident{}},
		"cancelled":    {context.Canceled, Incident{}},
		"closed store": {fmt.Errorf("hsm: %w", keystore.ErrClosed), Incident{}},
		"our own":      {fmt.Errorf("%w: CKR_DEVICE_ERROR", errOwn), Incident{}},
		"device": {fmt.Errorf("msl: sign: %w", fmt.Errorf("hsm: C_Sign: CKR_DEVICE_REMOVED; opening the PKCS #11 token again fails: hsm: C_Initialize: CKR_GENERAL_ERROR: %w", keystore.ErrUnavailable)),
			Incident{Kind: Device, Provider: PKCS11, Operation: "C_Sign", Result: "CKR_DEVICE_REMOVED", Cause: "unavailable"}},
		"device, by code": {msl.Failure(msl.ErrEntityAuthSignatureInvalid, "sign", fmt.Errorf("tpm: TPM2_Sign: no answer from the TPM: %w", keystore.ErrUnavailable)),
			Incident{Kind: Device, Provider: TPM, Operation: "TPM2_Sign", Cause: "unavailable", Code: msl.ErrInternalException}},
		"TPM": {fmt.Errorf("tpm: TPM2_RSA_Decrypt: TPM_RC_INTEGRITY (parameter 1): enrol again: %w", keystore.ErrForeign),
			Incident{Kind: Data, Provider: TPM, Operation: "TPM2_RSA_Decrypt", Result: "TPM_RC_INTEGRITY", Cause: "foreign"}},
		"unknown number": {fmt.Errorf("hsm: C_Sign: CKR 0x80000123: %w", keystore.ErrUnavailable),
			Incident{Kind: Device, Provider: PKCS11, Operation: "C_Sign", Cause: "unavailable"}},
		"names that nobody knows": {fmt.Errorf("hsm: C_Secret: CKR_SECRET TPM2_Secret TPM_RC_SECRET: %w", keystore.ErrBusy),
			Incident{Kind: Device, Provider: PKCS11, Cause: "busy"}},
		"names within words": {errors.New("xCKR_DEVICE_ERROR CKR_DEVICE_ERRORx C_Sign2"), Incident{}},
		"name alone":         {errors.New("CKR_DEVICE_ERROR"), Incident{Kind: Device, Result: "CKR_DEVICE_ERROR"}},
		"missing key":        {fmt.Errorf("soft: look up %q: %w", "x", keystore.ErrNotFound), Incident{Kind: Key, Provider: Software, Cause: "not-found"}},
		"weak key": {fmt.Errorf("open: %w", fmt.Errorf("hsm: key %q version %d: %w", `a" version 999: `, 12, keystore.ErrWeakKey)),
			Incident{Kind: Key, Provider: PKCS11, Cause: "weak-key", KeyVersion: 12}},
		"version of something else": {fmt.Errorf("key %q version 4711: %w", "x", keystore.ErrNotFound), Incident{Kind: Key, Cause: "not-found"}},
		"version too large":         {fmt.Errorf("hsm: key %q version 123456: %w", "x", keystore.ErrNotFound), Incident{Kind: Key, Provider: PKCS11, Cause: "not-found"}},
		"PIN":                       {fmt.Errorf("hsm: C_Login: CKR_PIN_INCORRECT: %w", keystore.ErrPIN), Incident{Kind: Device, Provider: PKCS11, Operation: "C_Login", Result: "CKR_PIN_INCORRECT", Cause: "pin"}},
		"token":                     {msl.Failure(msl.ErrMasterTokenUntrusted, "", nil), Incident{Kind: Token, Code: msl.ErrMasterTokenUntrusted}},
		"token, says the peer":      {&msl.PeerError{Code: msl.ErrUserIDTokenNotDecrypted, Message: "C_Sign CKR_DEVICE_ERROR"}, Incident{Kind: Token, Code: msl.ErrUserIDTokenNotDecrypted, Peer: true}},
		"revoked":                   {&msl.PeerError{Code: msl.ErrMasterTokenIdentityRevoked}, Incident{}},
		"wrong password":            {&msl.PeerError{Code: msl.ErrEmailPasswordIncorrect}, Incident{}},
		"the peer's own failure":    {&msl.PeerError{Code: msl.ErrInternalException}, Incident{}},
		"unknown code":              {&msl.PeerError{Code: 4711}, Incident{}},
		"parse error":               {msl.Failure(msl.ErrMSLParseError, "", nil), Incident{}},
		"decryption":                {msl.Failure(msl.ErrCiphertextBadPadding, "", fmt.Errorf("soft: ciphertext: %w", keystore.ErrBadData)), Incident{Kind: Data, Provider: Software, Cause: "bad-data", Code: msl.ErrCiphertextBadPadding}},
		"joined":                    {errors.Join(errors.New("first"), fmt.Errorf("hsm: C_Decrypt: CKR_KEY_HANDLE_INVALID: %w", keystore.ErrLost)), Incident{Kind: Key, Provider: PKCS11, Operation: "C_Decrypt", Result: "CKR_KEY_HANDLE_INVALID", Cause: "lost"}},
		"loop without end":          {endless{}, Incident{}},
		"long text":                 {errors.New(strings.Repeat("x ", 1<<20) + "CKR_DEVICE_ERROR"), Incident{}},
	} {
		got, ok := Classify(c.err)
		if ok != (c.want.Kind != "") || ok && got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if ok && got.check() != nil {
			t.Errorf("%s: %v", name, got.check())
		}
	}
}

// An endless error wraps others of its kind.
type endless struct{ depth int }

func (endless) Error() string { return "endless" }

func (e endless) Unwrap() error {
	if e.depth > 1000 {
		return nil
	}
	return endless{e.depth + 1}
}

// TestResponseCodes compares the names with those of go-tpm.
func TestResponseCodes(t *testing.T) {
	for code := tpm2.TPMRC(0x100); code < 0xa00; code++ {
		name, _, _ := strings.Cut(code.Error(), ":")
		name, _, _ = strings.Cut(name, " ")
		if strings.HasPrefix(name, "TPM_RC_") && !results()[name] {
			t.Errorf("%s is not known", name)
		}
	}
}

// TestCodes checks every code: reported ones have a kind, and rejections are not
// reported.
func TestCodes(t *testing.T) {
	kinds := map[Kind]int{}
	for _, c := range msl.Codes() {
		kinds[kindOfCode(c)]++
		if i, ok := Classify(c); ok && i.check() != nil {
			t.Errorf("%v: %v", c, i.check())
		}
	}
	for _, k := range []Kind{Key, Token, Data, ""} {
		if kinds[k] < 5 {
			t.Errorf("%d codes of kind %q", kinds[k], k)
		}
	}
}
