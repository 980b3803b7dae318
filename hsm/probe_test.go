package hsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func TestProbe(t *testing.T) {
	s, _ := newStore(t)
	before := s.Stats().Objects
	report, err := s.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report {
		t.Logf("%-16s ok %-5t required %-5t %s", c.Name, c.OK, c.Required, c.Detail)
		hashes := c.Name == "digest-key" && strings.Contains(c.Detail, "hashes secret keys") // as SoftHSM does
		if c.OK == hashes {
			t.Errorf("%s: ok %t: %s", c.Name, c.OK, c.Detail)
		}
	}
	if len(report) != 10 || s.Stats().Objects != before {
		t.Errorf("%d checks, %d objects left", len(report), s.Stats().Objects-before)
	}
}

// TestEvidence checks what the token reports about provisioned keys, given and made.
func TestEvidence(t *testing.T) {
	s, _ := newStore(t)
	if _, err := s.Provision("given", keystore.AESUnwrap128, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Provision("given", keystore.SealSession256, make([]byte, 32)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a sealing key from outside: %v", err)
	}
	if _, err := s.Create("other-label", keystore.SealSession256); !errors.Is(err, keystore.ErrWrongKey) {
		t.Errorf("a sealing key under another label: %v", err)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		t.Logf("%+v", i)
		given := i.Label == "given"
		if !i.Sensitive || i.Extractable || i.Modifiable || i.Copyable || i.Local == given || i.NeverExtractable == given || len(i.Weaknesses) > 0 || len(i.Mechanisms) != 1 {
			t.Errorf("evidence: %+v", i)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b keystore.Info) int { return slices.Compare([]byte(a.Label), []byte(b.Label)) }) || len(all) != 4 {
		t.Errorf("%d keys, or out of order", len(all))
	}
}

// TestOddObject puts an object into the token that is unlike all keys of the store.
func TestOddObject(t *testing.T) {
	s, _ := newStore(t)
	if _, err := s.CreateWeak("odd", keystore.AES128CBC, hsm.Flaw{Flags: map[uint]bool{0x104: false, 0x105: false}}); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 4 {
		t.Errorf("%d keys, %v", len(all), err)
	}
	if _, err := s.Lookup("odd"); !errors.Is(err, keystore.ErrWeakKey) {
		t.Errorf("look up: %v", err)
	}
}

// TestProbeDigest distinguishes a module that refuses from one that fails.
func TestProbeDigest(t *testing.T) {
	for _, test := range []struct {
		function string
		code     uint
		no       bool
	}{
		{"C_DigestKey", pkcs11.CKR_KEY_INDIGESTIBLE, true},
		{"C_DigestKey", pkcs11.CKR_FUNCTION_NOT_SUPPORTED, true},
		{"C_DigestKey", pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, true},
		{"C_DigestKey", pkcs11.CKR_DEVICE_ERROR, false},
		{"C_DigestKey", pkcs11.CKR_GENERAL_ERROR, false},
		{"C_DigestKey", pkcs11.CKR_KEY_HANDLE_INVALID, false},
		{"C_DigestInit", pkcs11.CKR_MECHANISM_INVALID, false},
		{"C_DigestFinal", pkcs11.CKR_FUNCTION_NOT_SUPPORTED, false},
	} {
		if hsm.Indigestible(test.function, test.code) != test.no {
			t.Errorf("%s %#x is a no: %t", test.function, test.code, !test.no)
		}
	}
	s, _ := newStore(t)
	if c := s.ProbeDigest(1 << 20); c.OK || !c.Untried {
		t.Errorf("without a session: %+v", c)
	}
}

// TestWithoutSecretKeys opens a token that makes no secret keys, such as a TPM's: only if
// each protection that cannot be tried is allowed by name, and then its key pairs work.
func TestWithoutSecretKeys(t *testing.T) {
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	m.Inject(hsmtest.Fault{Function: "C_GenerateKey", Code: pkcs11.CKR_FUNCTION_NOT_SUPPORTED})
	c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN}
	all := []string{"value-unreadable", "wrap-unwrap", "unwrap-closed", "tamper-refused", "lock", "rewrap-refused"}
	for i := range all {
		c.AllowWeak = slices.Delete(slices.Clone(all), i, i+1)
		if _, err := hsm.Open(c); !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), all[i]+": the module cannot do it") {
			t.Errorf("without %s: %v", all[i], err)
		}
	}
	c.AllowWeak = all
	if _, err := open(t, c).Create("pair", keystore.ECDSAP256); err != nil {
		t.Error(err)
	}
}
