package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
)

// persistRSA keeps the RSA storage key of the TCG's template at a handle.
func persistRSA(t *testing.T, d *tpm.Device, at tpm2.TPMHandle) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.RSASRKTemplate)}.Execute(tp)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth:             tpm2.TPMRHOwner,
			ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
			PersistentHandle: at,
		}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestParseURI(t *testing.T) {
	for _, s := range []string{
		"tpm:", "tpm:object=server", "tpm:object=a%20b?device=/dev/tpm0", "tpm:?unix=/run/swtpm/sock&state=/var/lib/state",
		"tpm:?tcp=127.0.0.1:2321&srk=0x81000002&timeout=1m30s", "tpm:?tcp=[::1]:2321",
	} {
		u, err := tpm.ParseURI(s)
		if strings.Contains(s, "[") {
			if err == nil {
				t.Errorf("%s: a character that needs a percent sign", s)
			}
			continue
		}
		if err != nil || u.String() != s {
			t.Errorf("%s: %v, %v", s, u, err)
		}
	}
	for s, words := range map[string]string{
		"":                                   "start with tpm:",
		"pkcs11:token=a":                     "start with tpm:",
		"tpm:server":                         "unknown attribute",
		"tpm:object=":                        "no value",
		"tpm:object=a;object=b":              "two attributes",
		"tpm:?pin-value=1234":                "secrets do not belong",
		"tpm:?device=tpm0":                   "absolute",
		"tpm:?device=/dev/tpm0&unix=/s":      "more than one",
		"tpm:?tcp=localhost":                 "missing port",
		"tpm:?tcp=:2321":                     "host:port",
		"tpm:?tcp=localhost:0":               "host:port",
		"tpm:?srk=0x40000001":                "persistent handle",
		"tpm:?srk=one":                       "persistent handle",
		"tpm:?timeout=-1s":                   "not a time",
		"tpm:?timeout=5":                     "not a time",
		"tpm:?state=/a b":                    "character ' ' must be written %20",
		"tpm:?state=/a%zz":                   `invalid URL escape "%zz"`,
		"tpm:?state=/a%00":                   "absolute",
		"tpm:?unknown=1":                     "unknown attribute",
		"tpm:?state=/a&state=/b":             "two attributes",
		"tpm:?device=/dev/tpm0&tcp=h:1":      "more than one",
		"tpm:?tcp=127.0.0.1:99999":           "host:port",
		"tpm:?state=/a&&timeout=5s":          "unknown attribute",
		"tpm:object=a?b?c":                   "unknown attribute",
		"tpm:?timeout=9999999999999999999h":  "not a time",
		"tpm:?srk=0x8100000100":              "persistent handle",
		"tpm:?device=/dev/tpm0;state=/state": "must be written %3B",
	} {
		_, err := tpm.ParseURI(s)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v, want %q", s, err, words)
		}
	}
}

func TestTSS2(t *testing.T) {
	s, _, c := newStore(t)
	v := must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	text := must[[]byte](t)(s.ExportTSS2("key", 1))
	block, _ := pem.Decode(text)
	if block.Type != "TSS2 PRIVATE KEY" {
		t.Errorf("PEM type %q", block.Type)
	}
	// As other programs read it: no description, and emptyAuth is there.
	var file struct {
		Type            asn1.ObjectIdentifier
		EmptyAuth       bool `asn1:"explicit,tag:0"`
		Parent          int64
		Public, Private []byte
	}
	if rest, err := asn1.Unmarshal(block.Bytes, &file); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	if !file.Type.Equal(asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}) || !file.EmptyAuth || file.Parent != 0x81000001 {
		t.Errorf("%v", file)
	}
	public := must[*tpm2.TPM2BPublic](t)(tpm2.Unmarshal[tpm2.TPM2BPublic](file.Public))
	if _, err := public.Contents(); err != nil {
		t.Error(err)
	}
	copied := must[keystore.Version](t)(s.ImportTSS2("copy", keystore.ECDSAP256, text))
	sign(t, copied.Key)
	if !copied.Key.(crypto.Signer).Public().(*ecdsa.PublicKey).Equal(v.Key.(crypto.Signer).Public()) {
		t.Error("another key")
	}
	_, err := s.ImportTSS2("other", keystore.HMACSHA256, text)
	is(t, "as another algorithm", err, keystore.ErrWrongKey)
	_, err = s.ImportTSS2("", keystore.ECDSAP256, text)
	is(t, "without a label", err, keystore.ErrWrongKey)
	_, err = s.ImportTSS2(tpm.SealLabel, keystore.ECDSAP256, text)
	is(t, "as a sealing key", err, keystore.ErrWrongKey)
	_, err = s.ExportTSS2("key", 2)
	is(t, "a missing version", err, keystore.ErrNotFound)
	reopened := openStore(t, s.Device(), c)
	sign(t, must[[]keystore.Version](t)(reopened.Lookup("copy"))[0].Key)
}

// TestTSS2Fields reads the fields of the newest draft of the specification, and names one that is
// in none.
func TestTSS2Fields(t *testing.T) {
	empty := []byte{0xa0, 3, 1, 1, 0xff}
	described, notRSA := append([]byte{0xa4, 5, 0x0c, 3}, "key"...), []byte{0xa5, 3, 1, 1, 0}
	for what, test := range map[string]struct {
		fields [][]byte
		word   string // of why it is refused
	}{
		"none":                {nil, ""},
		"all that are empty":  {[][]byte{empty, {0xa1, 2, 0x30, 0}, {0xa2, 2, 4, 0}, {0xa3, 2, 0x30, 0}, described, notRSA}, ""},
		"a description":       {[][]byte{described}, ""},
		"a signed policy":     {[][]byte{empty, {0xa3, 4, 0x30, 2, 0x30, 0}}, "it has a policy"},
		"a later field":       {[][]byte{empty, notRSA, {0xa6, 2, 5, 0}}, "it has the field [6], which is unknown"},
		"in another order":    {[][]byte{notRSA, described}, "it has the field [4], which is unknown or not in its place"},
		"a field that is cut": {[][]byte{{0xa6, 0x7f, 5, 0}}, "its ASN.1 is damaged"},
	} {
		body := slices.Concat(append([]byte{6, 6, 0x67, 0x81, 5, 10, 1, 3}, slices.Concat(test.fields...)...), []byte{2, 4, 0x40, 0, 0, 1, 4, 2, 0, 0, 4, 2, 0, 0})
		text := pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: append([]byte{0x30, byte(len(body))}, body...)})
		_, err := tpm.ParseTSS2(text)
		if test.word == "" && err != nil || test.word != "" && (err == nil || !strings.Contains(err.Error(), test.word)) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestParseTSS2Refuses(t *testing.T) {
	s, _, _ := newStore(t)
	must[keystore.Version](t)(s.Create("key", keystore.HMACSHA256))
	text := must[[]byte](t)(s.ExportTSS2("key", 1))
	f := must[*tpm.TSS2](t)(tpm.ParseTSS2(text))
	if again := must[[]byte](t)(f.PEM()); !bytes.Equal(again, text) {
		t.Error("written and read, another file")
	}
	block, _ := pem.Decode(text)
	der := func(change func(b []byte) []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: change(bytes.Clone(block.Bytes))})
	}
	type policy struct {
		Type      asn1.ObjectIdentifier
		EmptyAuth bool              `asn1:"explicit,tag:0"`
		Policy    []asn1.RawContent `asn1:"optional,explicit,tag:1"`
		Secret    []byte            `asn1:"optional,explicit,tag:2"`
		Parent    int64
		Public    []byte
		Private   []byte
	}
	secret := must[[]byte](t)(asn1.Marshal(policy{Type: asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}, Secret: []byte{1}, Parent: 1, Public: []byte{0, 0}, Private: []byte{0, 0}}))
	for what, test := range map[string]struct {
		text []byte
		want error
	}{
		"nothing":        {nil, keystore.ErrBadData},
		"another PEM":    {bytes.ReplaceAll(text, []byte("TSS2"), []byte("ANY")), keystore.ErrBadData},
		"cut-off ASN.1":  {der(func(b []byte) []byte { return b[:len(b)-1] }), keystore.ErrBadData},
		"more behind it": {der(func(b []byte) []byte { return append(b, 0) }), keystore.ErrBadData},
		"another type": {der(func(b []byte) []byte {
			return bytes.Replace(b, []byte{10, 1, 3}, []byte{10, 1, 4}, 1)
		}), errors.ErrUnsupported},
		"a secret":          {der(func([]byte) []byte { return secret }), errors.ErrUnsupported},
		"a private of size": {must[[]byte](t)((&tpm.TSS2{Parent: 1, Public: f.Public, Private: make([]byte, 70000)}).PEM()), keystore.ErrBadData},
	} {
		_, err := tpm.ParseTSS2(test.text)
		is(t, what, err, test.want)
	}
}

// TestTSS2OfOthers reads key files of other programs.
func TestTSS2OfOthers(t *testing.T) {
	for _, name := range []string{"true-as-ff.pem", "true-as-01.pem"} {
		f := must[*tpm.TSS2](t)(tpm.ParseTSS2(must[[]byte](t)(os.ReadFile(filepath.Join("testdata", "tss2", name)))))
		if !f.EmptyAuth || f.Parent != 0x81000001 || len(f.Public) != 86 || len(f.Private) != 126 {
			t.Errorf("%s: %v, %#x, %d, %d", name, f.EmptyAuth, f.Parent, len(f.Public), len(f.Private))
		}
	}
}

// TestTSS2Parent reads persistent handles of programs for which they are negative, and finds
// the key behind its certificate.
func TestTSS2Parent(t *testing.T) {
	body := must[[]byte](t)(hex.DecodeString("302506066781050a0103a003010101a503010101" + "020481000001" + "0405000361626304050003646566"))
	body[1] = byte(len(body) - 2)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: body})...)
	f := must[*tpm.TSS2](t)(tpm.ParseTSS2(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))))
	if f.Parent != 0x81000001 || !f.RSAParent || !f.EmptyAuth || string(f.Public)+string(f.Private) != "abcdef" {
		t.Errorf("%+v", f)
	}
}

// TestTSS2Several reads one key of a file with text around it, and no file of which it would
// leave a key out.
func TestTSS2Several(t *testing.T) {
	one := string(must[[]byte](t)((&tpm.TSS2{Parent: 0x81000001, Public: []byte("abc"), Private: []byte("def")}).PEM()))
	for what, test := range map[string]struct{ text, want string }{
		"text around it":    {"the key of camera 7\n\n" + one + "\nnothing more\n", ""},
		"two keys":          {one + one, "line 4: a second TSS2 key"},
		"a damaged one":     {one + strings.Replace(one, "MC", "*", 1), "line 4: a damaged block"},
		"one that is cut":   {one + one[:60], "line 4: a damaged block"},
		"joined on a line":  {strings.TrimSpace(one) + one, "line 1: a damaged block"},
		"of the older kind": {strings.ReplaceAll(one, "PRIVATE KEY", "KEY BLOB"), "no PEM block"},
	} {
		_, err := tpm.ParseTSS2([]byte(test.text))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %s", what, err, test.want)
		}
	}
}

// TestTSS2Reasons builds key files from elements, and tells why one is refused.
func TestTSS2Reasons(t *testing.T) {
	const loadable, importable, sealed = "06066781050a0103", "06066781050a0104", "06066781050a0105"
	const rest = "020101" + "04020000" + "04020000" // parent, public, private
	for what, test := range map[string]struct{ elements, want string }{
		"no emptyAuth":          {loadable + rest, ""},
		"emptyAuth FALSE":       {loadable + "a003010100" + rest, ""},
		"emptyAuth 01":          {loadable + "a003010101" + rest, ""},
		"emptyAuth of 2 bytes":  {loadable + "a00401020101" + rest, "ASN.1 is damaged"},
		"an empty policy":       {loadable + "a1023000" + rest, ""},
		"a policy":              {loadable + "a10730053003a00101" + rest, "it has a policy"},
		"an authorized policy":  {loadable + "a30730053003a00101" + rest, "it has a policy"},
		"a secret":              {loadable + "a203040101" + rest, "encrypted seed"},
		"an empty secret":       {loadable + "a2020400" + rest, ""},
		"a description":         {loadable + "a4050c03616263" + rest, ""},
		"an RSA parent":         {loadable + "a503010101" + rest, ""},
		"a flag of 2 bytes":     {loadable + "a50401020101" + rest, "ASN.1 is damaged"},
		"a key for TPM2_Import": {importable + rest, "TPM2_Import"},
		"sealed data":           {sealed + rest, "sealed data"},
		"another type":          {"06066781050a0109" + rest, "2.23.133.10.1.9 is unknown"},
	} {
		body := must[[]byte](t)(hex.DecodeString(test.elements))
		text := pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: append([]byte{0x30, byte(len(body))}, body...)})
		f, err := tpm.ParseTSS2(text)
		switch {
		case test.want == "" && (err != nil || f.EmptyAuth != (what == "emptyAuth 01")):
			t.Errorf("%s: %v", what, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s", what, err, test.want)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("tpm:object=a%20b?device=/dev/tpm0&state=/s&timeout=5s")
	f.Add("tpm:?tcp=h:1&srk=0x81000001")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := tpm.ParseURI(s)
		if err != nil {
			return
		}
		again, err := tpm.ParseURI(u.String())
		if err != nil || *again != *u {
			t.Errorf("%q is written as %q: %v", s, u, err)
		}
	})
}

func FuzzParseTSS2(f *testing.F) {
	text, err := (&tpm.TSS2{EmptyAuth: true, Parent: 0x81000001, Public: []byte("public"), Private: []byte("private")}).PEM()
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(text)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := tpm.ParseTSS2(pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der}))
		if err != nil {
			return
		}
		text, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := tpm.ParseTSS2(text)
		if err != nil || again.EmptyAuth != k.EmptyAuth || again.Parent != k.Parent || again.RSAParent != k.RSAParent || !bytes.Equal(again.Public, k.Public) || !bytes.Equal(again.Private, k.Private) {
			t.Errorf("written and read, another key: %v", err)
		}
	})
}

// FuzzState reads a state file whose checksum is right.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"storage_key":{"handle":"0x81000001","public":"AAAA"},"keys":[{"label":"a","version":1,"algorithm":"hmac-sha256","public":"AAAA","private":"AAAA"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := tpm.CheckState(text); err != nil && !errors.Is(err, keystore.ErrBadData) {
			t.Errorf("%v", err)
		}
	})
}
