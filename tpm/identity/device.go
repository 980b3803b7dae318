package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Device is the identity of this machine: its keys in a TPM and, in a file,
// what goes with them. It is safe for use by many goroutines. Every method reads
// the file anew, since another process may have renewed the identity.
type Device struct {
	// PCRs are quoted when the device enrolls, of the SHA-256 bank. None is
	// fine.
	PCRs []uint
	Time func() time.Time // nil means time.Now

	store *tpm.Store
	path  string
	mu    sync.Mutex // held by every method
	s     state
	sum   string // of the file
}

// Open reads the state file at path, which need not exist. A damaged one is
// [ErrDamaged]. The keys are under the storage key of the store, which the caller
// closes when the Device is no longer used.
func Open(store *tpm.Store, path string) (*Device, error) {
	s, sum, err := readState(path)
	if err != nil {
		return nil, err
	}
	return &Device{store: store, path: path, s: s, sum: sum}, nil
}

// acquire begins a method, which ends with mu.Unlock.
func (d *Device) acquire() error {
	d.mu.Lock()
	s, sum, err := readState(d.path)
	if err != nil {
		d.mu.Unlock()
		return err
	}
	d.s, d.sum = s, sum
	return nil
}

func (d *Device) now() time.Time {
	if d.Time != nil {
		return d.Time()
	}
	return time.Now()
}

// InitOptions say how Init makes an identity. The zero value is the usual one.
type InitOptions struct {
	EK         EKKind               // default: the first kind with a certificate, else EKRSA2048
	AK         keystore.Algorithm   // default ECDSAP256
	Algorithms []keystore.Algorithm // of the LDevIDs: ECDSAP256, RSASign2048 or both; default ECDSAP256
	NewKeys    bool                 // make new LDevIDs, because the old ones were revoked
	Replace    bool                 // give up the identity of another TPM
}

// Init makes the keys that are not there yet: an AK and the LDevIDs, under the
// storage key of the store. The EK is the TPM's own. Each is
// written to the file as soon as it is made, so that Init can be repeated after
// a crash; with everything there it changes nothing. Keys that do not load any
// more, since the TPM was cleared, are made anew.
//
// It may take minutes on a chip. progress, if there is one, hears what is done.
func (d *Device) Init(ctx context.Context, o InitOptions, progress func(string)) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if len(o.Algorithms) == 0 {
		o.Algorithms = []keystore.Algorithm{keystore.ECDSAP256}
	}
	o.AK = cmp.Or(o.AK, keystore.ECDSAP256)
	for _, a := range append([]keystore.Algorithm{o.AK}, o.Algorithms...) {
		if err := checkAlgorithm(a); err != nil {
			return err
		}
	}
	steps := []struct {
		what string
		do   func(InitOptions) error
	}{
		{"endorsement key", d.initEK}, {"storage key", d.initStorage},
		{"attestation key", d.initAK}, {"identity keys", d.initKeys},
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		report(progress, step.what)
		if err := step.do(o); err != nil {
			return err
		}
	}
	return nil
}

func report(progress func(string), what string) {
	if progress != nil {
		progress(what)
	}
}

// save writes a changed state, and keeps it only if that went well. What another
// process wrote meanwhile is not overwritten.
func (d *Device) save(change func(*state)) error {
	if _, sum, err := readState(d.path); err != nil || sum != d.sum {
		return errors.Join(err, proof.Fail(ErrInUse, "another process changed %s meanwhile: do it again", d.path))
	}
	next := d.s
	next.Keys, next.Next = slices.Clone(d.s.Keys), slices.Clone(d.s.Next)
	change(&next)
	sum, err := next.write(d.path)
	if sum != "" {
		d.s, d.sum = next, sum
	}
	return err
}

func (d *Device) initEK(o InitOptions) error {
	kind := o.EK
	if d.s.EK != nil && !o.Replace {
		kind = cmp.Or(kind, d.s.EK.Kind)
		if kind != d.s.EK.Kind {
			return fmt.Errorf("enroll: this device has an identity with EK %s: with another EK it is another device: add --replace for that", d.s.EK.Kind)
		}
	}
	var found []byte
	err := d.do(func(t transport.TPM) (err error) {
		if kind == "" {
			if kind, err = chooseEK(t); err != nil {
				return err
			}
		}
		return useEK(t, kind, func(_ tpm2.NamedHandle, public []byte) error { found = public; return nil })
	})
	if err != nil {
		return err
	}
	switch {
	case d.s.EK == nil:
		return d.save(func(s *state) { s.EK = &ekState{kind, found} })
	case sameEK(d.s.EK.Public, found):
		return nil
	case o.Replace:
		return d.save(func(s *state) { *s = state{Version: stateVersion, EK: &ekState{kind, found}} })
	}
	return proof.Fail(ErrOtherTPM, "%s", d.path)
}

func sameEK(a, b []byte) bool {
	x, err := proof.ParsePublic(a)
	y, err2 := proof.ParsePublic(b)
	return err == nil && err2 == nil && proof.SameKey(x.Key, y.Key)
}

// initStorage makes the storage key of the store that of the identity. One whose
// keys load under another storage key of this TPM keeps that.
func (d *Device) initStorage(InitOptions) error {
	_, public, err := d.store.StorageKey()
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil || bytes.Equal(d.s.StorageKey, name.Buffer) {
		return err
	}
	if d.s.AK != nil {
		if err := d.loads(*d.s.AK); !errors.Is(err, ErrCleared) {
			return err
		}
	}
	return d.save(func(s *state) { // what was under another one is lost
		s.forgetKeys()
		s.StorageKey = name.Buffer
	})
}

func (s *state) forgetKeys() {
	s.AK, s.Keys, s.Next, s.Identity, s.Last = nil, nil, nil, nil, nil
}

func (d *Device) initAK(o InitOptions) error {
	if d.s.AK != nil {
		err := d.loads(*d.s.AK)
		if !errors.Is(err, ErrCleared) {
			return err
		}
		if err := d.save((*state).forgetKeys); err != nil {
			return err
		}
	}
	ak, err := d.create(o.AK, true)
	if err != nil {
		return err
	}
	return d.save(func(s *state) { s.AK = &ak })
}

// initKeys makes the LDevIDs that are missing. Others than before are another
// identity.
func (d *Device) initKeys(o InitOptions) error {
	if o.NewKeys {
		if err := d.save(func(s *state) { s.Keys, s.Next, s.Identity, s.Last = nil, nil, nil, nil }); err != nil {
			return err
		}
	}
	for _, a := range o.Algorithms {
		if i := slices.IndexFunc(d.s.Keys, func(b tpm.Blob) bool { return b.Algorithm == a }); i >= 0 {
			if err := d.loads(d.s.Keys[i]); err != nil {
				return err
			}
			continue
		}
		k, err := d.create(a, false)
		if err != nil {
			return err
		}
		err = d.save(func(s *state) { s.Keys, s.Identity, s.Last = append(s.Keys, k), nil, nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// Check asks the TPM whether the identity is still there: [ErrOtherTPM],
// [ErrCleared], or what the TPM says.
func (d *Device) Check() error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	if err := d.s.ready(); err != nil {
		return err
	}
	err := d.do(func(t transport.TPM) error { return d.withEK(t, func(tpm2.NamedHandle) error { return nil }) })
	if err != nil {
		return err
	}
	for _, b := range append([]tpm.Blob{*d.s.AK}, d.s.Keys...) {
		if err := d.loads(b); err != nil {
			return err
		}
	}
	return nil
}

// Diagnose tells why the store of an identity does not open, as far as the EK and
// the storage key show it: [ErrOtherTPM], [ErrCleared], or nil where the storage
// key of the identity is there.
func Diagnose(device *tpm.Device, path string) error {
	s, _, err := readState(path)
	if err == nil {
		err = s.ready()
	}
	if err != nil {
		return err
	}
	err = device.Do(func(t transport.TPM) error {
		return useEK(t, s.EK.Kind, func(_ tpm2.NamedHandle, public []byte) error { return checkEK(&s, public, path) })
	})
	if err != nil {
		return err
	}
	_, err = device.FindPersistent(s.StorageKey)
	return cleared(err)
}

// ready reports whether Init came to its end.
func (s *state) ready() error {
	if s.EK == nil || s.AK == nil || len(s.Keys) == 0 {
		return fmt.Errorf("enroll: %w", ErrNotInitialized)
	}
	return nil
}

// withEK gives f the EK if it is the one of the state file.
func (d *Device) withEK(t transport.TPM, f func(tpm2.NamedHandle) error) error {
	return useEK(t, d.s.EK.Kind, func(h tpm2.NamedHandle, public []byte) error {
		if err := checkEK(&d.s, public, d.path); err != nil {
			return err
		}
		return f(h)
	})
}

func checkEK(s *state, public []byte, path string) error {
	if !sameEK(s.EK.Public, public) {
		return proof.Fail(ErrOtherTPM, "%s", path)
	}
	return nil
}

// A Credential is an LDevID that can be used.
type Credential struct {
	Algorithm   keystore.Algorithm
	Signer      crypto.Signer // SHA-256: ECDSA as ASN.1 DER, RSA as PKCS #1 v1.5
	Certificate *x509.Certificate
}

// Credentials returns the name of this device and its LDevIDs, each with its
// certificate if the authority issues any. Before the device is enrolled they
// are [ErrNotEnrolled].
func (d *Device) Credentials() (name string, list []Credential, err error) {
	if err := d.acquire(); err != nil {
		return "", nil, err
	}
	defer d.mu.Unlock()
	return d.credentials()
}

func (d *Device) credentials() (name string, list []Credential, err error) {
	if d.s.Identity == nil {
		return "", nil, fmt.Errorf("enroll: %w", ErrNotEnrolled)
	}
	for i, b := range d.s.Keys {
		s, err := d.signer(b)
		if err != nil {
			return "", nil, err
		}
		c := Credential{Algorithm: b.Algorithm, Signer: s}
		if len(d.s.Identity.Certificates) > i {
			if c.Certificate, err = x509.ParseCertificate(d.s.Identity.Certificates[i]); err != nil {
				return "", nil, proof.Fail(ErrDamaged, "certificate: %w", err)
			}
		}
		list = append(list, c)
	}
	return d.s.Identity.Name, list, nil
}
