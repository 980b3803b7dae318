package tpm_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// evict removes a persistent key, as another program would.
func evict(t *testing.T, d *tpm.Device, at tpm2.TPMHandle) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		public, err := tpm2.ReadPublic{ObjectHandle: at}.Execute(tp)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: at, Name: public.Name}, PersistentHandle: at,
		}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// move makes the storage key of the TCG persistent at a handle.
func move(t *testing.T, d *tpm.Device, at tpm2.TPMHandle) {
	t.Helper()
	persistPrimary(t, d, at, tpm2.ECCSRKTemplate)
}

// persistPrimary makes the key of a template persistent at a handle.
func persistPrimary(t *testing.T, d *tpm.Device, at tpm2.TPMHandle, template tpm2.TPMTPublic) {
	t.Helper()
	persist(t, d, at, tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)})
}

// persist makes the key of a command persistent at a handle.
func persist(t *testing.T, d *tpm.Device, at tpm2.TPMHandle, command tpm2.CreatePrimary) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		key, err := command.Execute(tp)
		if err != nil {
			return err
		}
		_, err = tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}, PersistentHandle: at,
		}.Execute(tp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestStorageKeyGone lets another program do what it likes to the persistent storage key:
// the keys under it work on, and KeepStorageKey puts it where it stays.
func TestStorageKeyGone(t *testing.T) {
	const usual, other = 0x81000001, 0x81000123
	for what, test := range map[string]struct {
		do   func(t *testing.T, d *tpm.Device)
		kept uint32
	}{
		"evicted": {func(t *testing.T, d *tpm.Device) { evict(t, d, usual) }, usual},
		"taken":   {func(t *testing.T, d *tpm.Device) { evict(t, d, usual); persistRSA(t, d, usual) }, usual + 1},
		"moved":   {func(t *testing.T, d *tpm.Device) { evict(t, d, usual); move(t, d, other) }, other},
	} {
		t.Run(what, func(t *testing.T) {
			s, p, c := newStore(t)
			d := s.Device()
			must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
			s.Close()
			test.do(t, d)
			d.Close()
			d = device(t, p)
			for range 2 {
				s = openStore(t, d, c)
				sign(t, must[[]keystore.Version](t)(s.Lookup("key"))[0].Key)
				if err := work(s); err != nil {
					t.Error(err)
				}
				s.Close()
			}
			s = openStore(t, d, c)
			if err := tpm.KeepStorageKey(s); err != nil {
				t.Fatal(err)
			}
			s.Close()
			d.Close()
			d = device(t, p)
			s = openStore(t, d, c)
			if at, _, err := s.StorageKey(); uint32(at) != test.kept || err != nil {
				t.Errorf("kept at %#x, %v; want %#x", uint32(at), err, test.kept)
			}
			if _, err := d.FindPersistent(nameOf(t, s)); err != nil {
				t.Error(err)
			}
			isEmpty(t, s)
		})
	}
}

func nameOf(t *testing.T, s *tpm.Store) []byte {
	t.Helper()
	_, public, err := s.StorageKey()
	if err != nil {
		t.Fatal(err)
	}
	return must[*tpm2.TPM2BName](t)(tpm2.ObjectName(public)).Buffer
}

// TestStorageKeyMovedWhileOpen evicts the storage key of a store in use.
func TestStorageKeyMovedWhileOpen(t *testing.T) {
	for what, then := range map[string]func(t *testing.T, d *tpm.Device, p *tpmtest.TPM){
		"evicted":      func(*testing.T, *tpm.Device, *tpmtest.TPM) {},
		"taken":        func(t *testing.T, d *tpm.Device, _ *tpmtest.TPM) { persistRSA(t, d, 0x81000001) },
		"and no power": func(_ *testing.T, _ *tpm.Device, p *tpmtest.TPM) { p.Kill() },
	} {
		t.Run(what, func(t *testing.T) {
			s, p, _ := newStore(t)
			k := must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256)).Key
			sign(t, k)
			evict(t, s.Device(), 0x81000001)
			then(t, s.Device(), p)
			sign(t, k)
			if err := work(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStorageKeyOwned evicts the storage key of a TPM whose owner has a password: that is
// what is missing, and nothing is lost.
func TestStorageKeyOwned(t *testing.T) {
	s, p, c := newStore(t)
	s.Close()
	evict(t, s.Device(), 0x81000001)
	changeAuth(t, s.Device(), tpm2.TPMRHOwner, "secret")
	s.Device().Close()
	d := device(t, p)
	_, err := d.OpenStore(c)
	wrongPassword(t, "opening", err, "owner", false)
	set(t, d, tpm.Passwords{Owner: source(t, "secret")})
	if err := work(openStore(t, d, c)); err != nil {
		t.Error(err)
	}
}

// TestStorageKeyForeign looks for a storage key that the TPM does not have, where the owner
// has a password: each try needs a session, and none is left.
func TestStorageKeyForeign(t *testing.T) {
	p := tpmtest.Start(t)
	d := device(t, p)
	changeAuth(t, d, tpm2.TPMRHOwner, "secret")
	set(t, d, tpm.Passwords{Owner: source(t, "secret")})
	for range 3 {
		is(t, "another storage key", d.FindStorageKey(make([]byte, 34)), keystore.ErrNotFound)
	}
	nothingLoaded(t, d)
}

// TestStorageKeyRefused has a TPM that makes no storage key at all: it tells nothing of its
// seed, and so is not called cleared.
func TestStorageKeyRefused(t *testing.T) {
	const value = 0x2c4 // TPM_RC_VALUE, of the second parameter
	s, p, c := newStore(t)
	_, public, err := s.StorageKey()
	if err != nil {
		t.Fatal(err)
	}
	name := must[*tpm2.TPM2BName](t)(tpm2.ObjectName(public))
	evict(t, s.Device(), 0x81000001)
	s.Close()
	s.Device().Close()
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(tpmtest.RefuseCommand(uint32(tpm2.TPMCCCreatePrimary), value)), time.Minute))
	defer d.Close()
	if err := d.FindStorageKey(name.Buffer); !errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
	_, err = d.OpenStore(c)
	if !errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, keystore.ErrForeign) {
		t.Error(err)
	}
}

// TestStorageKeyNamed opens a store whose storage key the URI finds elsewhere, and one
// whose handle there holds another key.
func TestStorageKeyNamed(t *testing.T) {
	s, _, c := newStore(t)
	d := s.Device()
	s.Close()
	move(t, d, 0x81000005)
	persistRSA(t, d, 0x81000006)
	for _, srk := range []uint32{0x81000005, 0x81000006, 0x81000007} {
		c.SRK = srk
		s := openStore(t, d, c)
		if err := work(s); err != nil {
			t.Errorf("%#x: %v", srk, err)
		}
		s.Close()
	}
}

// TestCounterOfOthers finishes a counter that another program defined, for which the
// owner's password is not needed.
func TestCounterOfOthers(t *testing.T) {
	s, _, _ := newStore(t)
	define(t, s, tpm2.TPMANV{NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, AuthWrite: true, AuthRead: true, NoDA: true})
	changeAuth(t, s.Device(), tpm2.TPMRHOwner, "secret")
	must[uint64](t)(must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter)).Increment())
}

// TestHandleTaken follows the advice where another key is at the handle.
func TestHandleTaken(t *testing.T) {
	p := tpmtest.Start(t)
	d := device(t, p)
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "one")}))
	defer s.Close()
	must[keystore.Version](t)(s.Create("key", keystore.ECDSAP256))
	if err := s.Persist("key", 1, 0x81000002); err != nil {
		t.Fatal(err)
	}
	_, err := d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "two"), SRK: 0x81000002})
	says(t, "a signing key there", err, keystore.ErrWeakKey, "0x81000002", "srk=0x81000003")
	other := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "two"), SRK: 0x81000003}))
	defer other.Close()
	if err := work(other); err != nil {
		t.Error(err)
	}
}

// TestStorageKeysGoneTogether makes a storage key again, by the owner's password, after another
// program removed it and the one that the session for the password is salted with.
func TestStorageKeysGoneTogether(t *testing.T) {
	const own, another = 0x81000001, 0x81000007
	p := tpmtest.Start(t)
	d := device(t, p)
	c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}
	s := must[*tpm.Store](t)(d.InitStore(c))
	locking := ownerParent()
	locking.ObjectAttributes.NoDA = false
	persistPrimary(t, d, another, locking)
	must[keystore.Version](t)(s.ImportTSS2("key", keystore.ECDSAP256, keyFile(t, d, another, asOpenSSL(), "", true)))
	s.Close()
	d.Close()
	d = device(t, p)
	s = openStore(t, d, c)
	evict(t, d, own)
	evict(t, d, another)
	changeAuth(t, d, tpm2.TPMRHOwner, "secret")
	if err := d.SetPasswords(tpm.Passwords{Owner: source(t, "secret")}); err != nil {
		t.Fatal(err)
	}
	sign(t, must[[]keystore.Version](t)(s.Lookup("key"))[0].Key)
}

// TestStorageKeyUnfit refuses keys of other programs under which keys cannot be made, or would be
// lost if the program removed its key, and follows the advice.
func TestStorageKeyUnfit(t *testing.T) {
	const usual, free = 0x81000001, 0x81000002
	unrepeatable := tpm2.ECCSRKTemplate
	unrepeatable.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: random(32)}})
	for want, command := range map[string]tpm2.CreatePrimary{
		"it has a password": {PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate), InSensitive: tpm2.TPM2BSensitiveCreate{
			Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}}},
		"cannot be repeated":  {PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(unrepeatable)},
		"made in a way that ": {PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)},
	} {
		t.Run(want, func(t *testing.T) {
			p := tpmtest.Start(t)
			d := device(t, p)
			persist(t, d, usual, command)
			c := tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}
			_, err := d.InitStore(c)
			says(t, "init", err, keystore.ErrWrongKey, "0x81000001", want, "srk=0x81000002")
			d.Close()
			c.SRK = free
			s := must[*tpm.Store](t)(device(t, p).InitStore(c))
			defer s.Close()
			if err := work(s); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStorageKeyUnverified uses a key that only the owner, whose password is unknown, could make
// again.
func TestStorageKeyUnverified(t *testing.T) {
	d := device(t, tpmtest.Start(t))
	move(t, d, 0x81000001)
	changeAuth(t, d, tpm2.TPMRHOwner, "secret")
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	if err := work(s); err != nil {
		t.Error(err)
	}
}

// TestSimultaneously has another process make the storage key, keep it, and make the counter in
// the moment before this one does.
func TestSimultaneously(t *testing.T) {
	p := tpmtest.Start(t)
	var before uint32
	d := must[*tpm.Device](t)(tpm.NewDevice(p.Quirky(func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if tpmtest.Command(command) == before {
			before = 0
			if answer, err := send(command); err != nil || tpmtest.Code(answer) != 0 {
				t.Errorf("the other process: %x, %v", answer, err)
			}
		}
		return send(command)
	}), time.Minute))
	defer d.Close()
	before = uint32(tpm2.TPMCCEvictControl)
	s := must[*tpm.Store](t)(d.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")}))
	defer s.Close()
	evict(t, d, 0x81000001)
	if err := work(s); err != nil {
		t.Error(err)
	}
	before = uint32(tpm2.TPMCCEvictControl)
	if err := tpm.KeepStorageKey(s); err != nil {
		t.Error(err)
	}
	before = uint32(tpm2.TPMCCNVDefineSpace)
	must[uint64](t)(must[*tpm.Counter](t)(s.DefineCounter(tpm.DefaultCounter)).Increment())
}
