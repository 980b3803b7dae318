package hsm_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestOptionalAttributes makes keys with a module that does not take some attributes of
// token objects, as openCryptoki does not. A key loses no attribute but these, and is
// refused by its weakness, with their names, unless that is allowed.
func TestOptionalAttributes(t *testing.T) {
	const allowed = pkcs11.CKA_ALLOWED_MECHANISMS
	for _, test := range []struct {
		name    string
		a       keystore.Algorithm
		unknown []uint
		weak    string // that has to be allowed, or ""
		names   string // of what is left out
	}{
		{"mechanisms", keystore.SealMAC256, []uint{allowed}, "", "CKA_ALLOWED_MECHANISMS"},
		{"copyable", keystore.SealMAC256, []uint{ckaCopyable}, "copyable", "CKA_COPYABLE"},
		{"both", keystore.SealMAC256, []uint{ckaCopyable, allowed}, "copyable", "CKA_ALLOWED_MECHANISMS, CKA_COPYABLE"},
		{"pair", keystore.ECDSAP256, []uint{pkcs11.CKA_MODIFIABLE}, "modifiable", "CKA_MODIFIABLE"},
		{"template", keystore.SealSession256, []uint{pkcs11.CKA_UNWRAP_TEMPLATE}, "unwrap-template", "CKA_UNWRAP_TEMPLATE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := softhsm.Temp(t)
			m := hsmtest.New(t, token.Module)
			var log bytes.Buffer
			c := hsm.Config{URI: (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), PIN: token.PIN, Log: slog.New(slog.NewTextHandler(&log, nil))}
			label := keystore.SealingLabel(keystore.DefaultPrefix, test.a)
			if label == "" {
				label = "pair"
			}
			strict := open(t, c)
			lax := strict
			if test.weak != "" {
				c.AllowWeak = []string{test.weak}
				lax = open(t, c)
			}
			m.Inject(hsmtest.Fault{Function: "C_GenerateKey", Unknown: true, Attribute: test.unknown},
				hsmtest.Fault{Function: "C_GenerateKeyPair", Unknown: true, Attribute: test.unknown})
			if test.weak != "" {
				_, err := strict.Create(label, test.a)
				if !errors.Is(err, keystore.ErrWeakKey) || !strings.Contains(err.Error(), "takes no keys with "+test.names+": ") || !strings.Contains(err.Error(), test.weak+": ") {
					t.Errorf("not allowed: %v", err)
				}
				if all, err := strict.List(); err != nil || len(all) > 0 {
					t.Errorf("left: %v, %v", all, err)
				}
			}
			if _, err := lax.Create(label, test.a); err != nil {
				t.Errorf("allowed: %v", err)
			}
			if want := `without="` + test.names + `"`; !strings.Contains(log.String(), want) && !strings.Contains(log.String(), "without="+test.names) {
				t.Errorf("log: %s, want %s", log.String(), want)
			}
			all, err := lax.List()
			if err != nil || len(all) != 1 || len(all[0].Weaknesses) > 0 != (test.weak != "") || len(all[0].Weaknesses) > 1 {
				t.Errorf("made: %+v, %v", all, err)
			}
		})
	}
}

// TestWithout removes attributes at every place of a template.
func TestWithout(t *testing.T) {
	for _, test := range []struct{ omit, left []uint }{
		{nil, []uint{1, 2, 3}}, {[]uint{1}, []uint{2, 3}}, {[]uint{2}, []uint{1, 3}},
		{[]uint{3, 1}, []uint{2}}, {[]uint{1, 2, 3, 4}, nil},
	} {
		if left := hsm.Without([]uint{1, 2, 3}, test.omit); !slices.Equal(left, test.left) {
			t.Errorf("without %v: %v", test.omit, left)
		}
	}
}
