package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// wrapFor makes a key file for TPM2_Import, as another machine does that has the public area of
// the parent and the key.
func wrapFor(t *testing.T, parent *tpm2.TPMTPublic, f tpm.TSS2, password string) *tpm.TSS2 {
	t.Helper()
	private := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	point := must[[]byte](t)(private.PublicKey.Bytes())
	public := asOpenSSL()
	public.ObjectAttributes.FixedTPM, public.ObjectAttributes.FixedParent, public.ObjectAttributes.SensitiveDataOrigin = false, false, false
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	sensitive := tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgECC, AuthValue: tpm2.TPM2BAuth{Buffer: []byte(password)},
		Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: must[[]byte](t)(private.Bytes())}),
	})
	name := must[*tpm2.TPM2BName](t)(tpm2.ObjectName(&public)).Buffer
	to := must[tpm2.LabeledEncapsulationKey](t)(tpm2.ImportEncapsulationKey(parent))
	var err error
	if f.Private, f.Seed, err = tpm2.CreateDuplicate(rand.Reader, to, name, sensitive); err != nil {
		t.Fatal(err)
	}
	f.Public = tpm2.Marshal(public)
	return &f
}

// toolsRSA is the template of tpm2_createprimary -G rsa.
func toolsRSA() tpm2.TPMTPublic {
	t := ownerRSA()
	t.ObjectAttributes.NoDA = false
	return t
}

// publicOf reads the public area of a persistent key, or makes that of a template.
func publicOf(t *testing.T, d *tpm.Device, at tpm2.TPMHandle, template tpm2.TPMTPublic) (p *tpm2.TPMTPublic) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		if at != tpm2.TPMRHOwner {
			r, err := tpm2.ReadPublic{ObjectHandle: at}.Execute(tp)
			if err == nil {
				p, err = r.OutPublic.Contents()
			}
			return err
		}
		r, err := tpm2.CreatePrimary{PrimaryHandle: at, InPublic: tpm2.New2B(template)}.Execute(tp)
		if err == nil {
			p, err = r.OutPublic.Contents()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAdoptImportable imports keys that another machine wrapped for this TPM, under each kind of
// parent: they work after a restart, were not made here, cannot leave the TPM, and can be written
// and read again.
func TestAdoptImportable(t *testing.T) {
	const another = 0x81000007
	p := tpmtest.Start(t)
	d := device(t, p)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state"), PIN: []byte("right")}
	s := must[*tpm.Store](t)(d.InitStore(c))
	persistRSA(t, d, another)
	for what, test := range map[string]struct {
		file     tpm.TSS2
		template tpm2.TPMTPublic
		password string
	}{
		"under the storage key":     {tpm.TSS2{Parent: 0x81000001, EmptyAuth: true}, tpm2.TPMTPublic{}, ""},
		"under another, of RSA":     {tpm.TSS2{Parent: another, EmptyAuth: true}, tpm2.TPMTPublic{}, ""},
		"under the owner hierarchy": {tpm.TSS2{Parent: tpm2.TPMRHOwner, EmptyAuth: true}, ownerParent(), ""},
		"under an RSA owner key":    {tpm.TSS2{Parent: tpm2.TPMRHOwner, RSAParent: true, EmptyAuth: true}, ownerRSA(), ""},
		"under an RSA key, unsaid":  {tpm.TSS2{Parent: tpm2.TPMRHOwner, EmptyAuth: true}, toolsRSA(), ""},
		"with the PIN":              {tpm.TSS2{Parent: 0x81000001}, tpm2.TPMTPublic{}, "right"},
	} {
		f := wrapFor(t, publicOf(t, d, test.file.Parent, test.template), test.file, test.password)
		v, err := s.ImportTSS2(what, keystore.ECDSAP256, must[[]byte](t)(f.PEM()))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		sign(t, v.Key)
		again := must[[]byte](t)(s.ExportTSS2(what, 1))
		sign(t, must[keystore.Version](t)(s.ImportTSS2(what, keystore.ECDSAP256, again)).Key)
	}
	loose := asOpenSSL() // as tsscreate makes it by default: it is not fixed, and has no policy
	loose.ObjectAttributes.FixedTPM, loose.ObjectAttributes.FixedParent, loose.ObjectAttributes.NoDA = false, false, true
	sign(t, must[keystore.Version](t)(s.ImportTSS2("loose", keystore.ECDSAP256, keyFile(t, d, 0x81000001, loose, "", true))).Key)
	for _, i := range must[[]keystore.Info](t)(s.List()) {
		made := i.Label == tpm.SealLabel
		if len(i.Weaknesses) > 0 || !i.Sensitive || i.NeverExtractable != made || i.Local != made || i.AlwaysSensitive != made {
			t.Errorf("%+v", i)
		}
	}
	wrapped := must[*tpm.TSS2](t)(tpm.ParseTSS2(must[[]byte](t)(s.ExportTSS2("under the storage key", 1))))
	made := must[*tpm.TSS2](t)(tpm.ParseTSS2(must[[]byte](t)(s.ExportTSS2("loose", 1))))
	s.Close()
	stuck(t, d, wrapped)
	stuck(t, d, made)
	d.Close()
	reopened := openStore(t, device(t, p), c)
	for _, label := range []string{"under the storage key", "under another, of RSA", "under the owner hierarchy", "with the PIN"} {
		sign(t, must[[]keystore.Version](t)(reopened.Lookup(label))[0].Key)
	}
}

// stuck checks that TPM2_Duplicate refuses a key of a key file, with its password and with a
// policy that is satisfied.
func stuck(t *testing.T, d *tpm.Device, f *tpm.TSS2) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		parent, err := tpm2.ReadPublic{ObjectHandle: f.Parent}.Execute(tp)
		if err != nil {
			return err
		}
		loaded, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: f.Parent, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](f.Public), InPrivate: tpm2.TPM2BPrivate{Buffer: f.Private},
		}.Execute(tp)
		if err != nil {
			return err
		}
		allowed := tpm2.Policy(tpm2.TPMAlgSHA256, 16, tpm2.PolicyCallback(func(tp transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
			_, err := tpm2.PolicyCommandCode{PolicySession: session, Code: tpm2.TPMCCDuplicate}.Execute(tp)
			return err
		}))
		for _, auth := range []tpm2.Session{tpm2.PasswordAuth(nil), allowed} {
			_, err := tpm2.Duplicate{
				ObjectHandle:    tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: auth},
				NewParentHandle: tpm2.NamedHandle{Handle: tpm2.TPMRHNull}, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
			}.Execute(tp)
			if !errors.Is(err, tpm2.TPMRCAuthType) && !errors.Is(err, tpm2.TPMRCPolicyFail) {
				t.Errorf("TPM2_Duplicate: %v", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAdoptImportableRefused gives the true reason for each key for TPM2_Import that is not
// imported, and keeps nothing of it.
func TestAdoptImportableRefused(t *testing.T) {
	s, _, _ := newStore(t)
	d := s.Device()
	const here tpm2.TPMHandle = 0x81000001
	other := device(t, tpmtest.Start(t))
	must[*tpm.Store](t)(other.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "other")})).Close()
	parent := publicOf(t, d, here, tpm2.TPMTPublic{})
	for what, test := range map[string]struct {
		from   *tpm2.TPMTPublic
		change func(f *tpm.TSS2)
		want   error
		word   string
	}{
		"another TPM":     {publicOf(t, other, here, tpm2.TPMTPublic{}), func(*tpm.TSS2) {}, keystore.ErrForeign, "the file belongs to another TPM, or"},
		"another RSA key": {publicOf(t, other, tpm2.TPMRHOwner, ownerRSA()), func(f *tpm.TSS2) { f.Parent, f.RSAParent = tpm2.TPMRHOwner, true }, keystore.ErrForeign, "or its parent is another than it says"},
		"RSA parent":      {publicOf(t, d, tpm2.TPMRHOwner, ownerRSA()), func(*tpm.TSS2) {}, keystore.ErrForeign, "or its parent is another than it says"},
		"a damaged key":   {parent, func(f *tpm.TSS2) { f.Private[40] ^= 1 }, keystore.ErrForeign, "or is damaged"},
		"a damaged seed":  {parent, func(f *tpm.TSS2) { f.Seed[40] ^= 1 }, keystore.ErrForeign, "or is damaged"},
		"an empty seed":   {parent, func(f *tpm.TSS2) { f.Seed = []byte{} }, keystore.ErrForeign, "or is damaged"},
		"a short seed":    {parent, func(f *tpm.TSS2) { f.Seed = f.Seed[:7] }, keystore.ErrForeign, "or is damaged"},
		"nothing private": {parent, func(f *tpm.TSS2) { f.Private = []byte{} }, keystore.ErrForeign, "or is damaged"},
		"bound": {parent, func(f *tpm.TSS2) { binary.BigEndian.PutUint32(f.Public[4:], binary.BigEndian.Uint32(f.Public[4:])|2) },
			keystore.ErrBadData, "it is for TPM2_Import, but bound to the TPM in which it was made"},
		"a password": {nil, nil, keystore.ErrPIN, "it has a password, which must be the PIN of this store"},
	} {
		password := ""
		if test.from == nil {
			test.from, test.change, password = parent, func(*tpm.TSS2) {}, "unknown"
		}
		f := wrapFor(t, test.from, tpm.TSS2{Parent: here}, password)
		test.change(f)
		_, err := s.ImportTSS2("key", keystore.ECDSAP256, must[[]byte](t)(f.PEM()))
		says(t, what, err, test.want, test.word)
		_, err = s.Lookup("key")
		is(t, "what was refused", err, keystore.ErrNotFound)
	}
}

// TestImportableOfOthers reads a key file for TPM2_Import of another program, and writes it again.
func TestImportableOfOthers(t *testing.T) {
	text := must[[]byte](t)(os.ReadFile(filepath.Join("testdata", "tss2", "importable.pem")))
	f := must[*tpm.TSS2](t)(tpm.ParseTSS2(text))
	if !f.EmptyAuth || f.Parent != 0x81000001 || len(f.Seed) != 68 || f.Usable() != nil || len(f.Algorithms()) != 1 || f.Algorithms()[0] != keystore.ECDSAP256 {
		t.Errorf("%+v, %v, %v", f, f.Usable(), f.Algorithms())
	}
	was, _ := pem.Decode(text)
	is, _ := pem.Decode(must[[]byte](t)(f.PEM()))
	if !bytes.Equal(was.Bytes, is.Bytes) {
		t.Error("written again, it is another file")
	}
}
