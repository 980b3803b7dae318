package identity

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// InitOptions are the options of [Device.Init]. The zero value is the usual choice.
type InitOptions struct {
	EK          EKKind // default: that of Certificate, or the first kind with a certificate, else EKRSA2048
	Certificate []byte // of the EK, PEM, DER or as from Service, and those above it; default: those in the TPM
	// Service is asked once for the certificate of an EK if the TPM has none; its answer
	// is kept. Uncertified is called with the reason why it gave none. Nil for either
	// means no call.
	Service     func(ctx context.Context, ek crypto.PublicKey) ([]byte, error)
	Uncertified func(error)
	AK          keystore.Algorithm   // default ECDSAP256
	Algorithms  []keystore.Algorithm // of the LDevIDs: ECDSAP256, RSASign2048 or both; default ECDSAP256
	NewKeys     bool                 // make new LDevIDs, because the old ones were revoked
	Replace     bool                 // give up the identity of another TPM
	// GivenUp, if not nil, is called when Init has replaced an identity whose keys do not load
	// anymore, with the path of a file that keeps it.
	GivenUp func(kept string)
}

// Init makes the keys that do not exist yet: an AK and the LDevIDs, under the storage
// key of the store. The EK is the TPM's own. Each key is written to the file as soon as
// it is made, so that Init can be repeated after a crash; if all exist, it changes
// nothing. Keys that no longer load, because the TPM was cleared or because their storage key
// is gone and nothing tells how it was made, are replaced. The error is [ErrOtherTPM] or
// [ErrOtherEK] if the identity belongs to another TPM or EK.
//
// On a chip it may take minutes. progress, if not nil, is called before each step.
func (d *Device) Init(ctx context.Context, o InitOptions, progress func(string)) error {
	end, err := d.takeTurn(ctx, progress)
	if err != nil {
		return err
	}
	defer end()
	k, err := d.read()
	if err != nil {
		return err
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []keystore.Algorithm{keystore.ECDSAP256}
	}
	o.AK = cmp.Or(o.AK, keystore.ECDSAP256)
	for _, a := range append([]keystore.Algorithm{o.AK}, o.Algorithms...) {
		if err := checkAlgorithm(a); err != nil {
			return err
		}
	}
	i := initialization{InitOptions: o, keyring: k}
	steps := []struct {
		what string
		do   func() error
	}{
		{"endorsement key", func() error { return i.findEK(ctx) }}, {"attestation key", i.makeAK}, {"identity keys", i.makeKeys},
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		report(progress, step.what)
		if err := step.do(); err != nil {
			return err
		}
	}
	return nil
}

// An initialization is one call of Init.
type initialization struct {
	InitOptions
	keyring
	replaced *ekState // replaces another TPM's, once there is an AK for it
}

// findEK finds the EK of the TPM, and checks that it is the identity's.
func (i *initialization) findEK(ctx context.Context) error {
	kind := i.EK
	if i.file.state.EK != nil && !i.Replace {
		kind = cmp.Or(kind, i.file.state.EK.Kind)
		if kind != i.file.state.EK.Kind {
			return fmt.Errorf("enroll: this device already has an identity, with EK %s: %w", i.file.state.EK.Kind, ErrOtherEK)
		}
	}
	next := &ekState{Kind: kind, Certificates: proof.OwnFirst(answered(i.Certificate), kind)}
	if err := i.do(func(t transport.TPM) error { return i.discover(t, next) }); err != nil {
		return err
	}
	if err := i.addCertificates(ctx, next); err != nil {
		return err
	}
	same := i.file.state.EK != nil && sameEK(i.file.state.EK.Public, next.Public)
	switch {
	case same && len(next.Certificates) == 0:
		return nil
	case i.file.state.EK == nil || same:
		return i.file.save(func(s *state) { s.EK = next })
	case i.Replace:
		i.replaced = next
		return nil
	}
	return proof.Fail(ErrOtherTPM, "%s", i.file.path)
}

// usualEK returns the kind of EK to use without a certificate. Small TPMs have no RSA.
func (i *initialization) usualEK() EKKind {
	c := i.store.Device().Capabilities()
	if !slices.Contains(c.Algorithms, tpm2.TPMAlgRSA) && slices.Contains(c.Curves, tpm2.TPMECCNistP256) {
		return EKP256
	}
	return EKRSA2048
}

// discover finds the EK: the identity's, else the certificate's, else any.
func (i *initialization) discover(t transport.TPM, next *ekState) (err error) {
	var certified, wanted crypto.PublicKey
	if len(i.Certificate) > 0 {
		if certified, err = givenKey(next.Certificates); err != nil {
			return err
		}
		next.Kind = cmp.Or(next.Kind, proof.KindOf(certified))
	}
	if next.Kind == "" {
		if next.Kind, err = chooseEK(t, i.usualEK()); err != nil {
			return err
		}
	}
	switch {
	case i.file.state.EK != nil && !i.Replace:
		wanted, err = i.file.state.EK.key()
	case certified != nil:
		wanted = certified
	default:
		wanted, err = certifiedKey(t, next.Kind)
	}
	if err != nil {
		return err
	}
	return useEK(t, next.Kind, wanted, func(k ek) error {
		if next.Public = k.public; certified != nil && !k.is(certified) {
			return proof.Fail(ErrEKCertificate, "it is not for the %s EK of this TPM", next.Kind)
		}
		return nil
	})
}

// givenKey returns the key that a certificate from a file certifies.
func givenKey(list [][]byte) (crypto.PublicKey, error) {
	if len(list) == 0 {
		return nil, proof.Fail(ErrEKCertificate, "the file contains none")
	}
	c, err := proof.ParseCertificate(list[0])
	if err != nil {
		return nil, proof.Fail(ErrEKCertificate, "%w", err)
	}
	return c.PublicKey, nil
}

// makeAK makes the AK if it is missing or no longer loads, under the storage key of the
// store; an AK that loads stays under its own. Lost keys are given up in the same write
// that stores the new AK.
func (i *initialization) makeAK() error {
	if i.replaced == nil && i.file.state.AK != nil {
		if err := i.loads(*i.file.state.AK); !errors.Is(err, ErrCleared) {
			return err
		}
	}
	_, public, err := i.store.StorageKey()
	if err != nil {
		return err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return err
	}
	ak, err := i.store.CreateBlob(name.Buffer, i.AK, true)
	if err != nil {
		return err
	}
	return i.giveUp(func(s *state) {
		if s.forgetKeys(); i.replaced != nil {
			s.EK = i.replaced
		}
		s.StorageKey, s.AK = name.Buffer, &ak
	})
}

// giveUp saves a change that removes the keys, and keeps the file with them, if there are any.
func (i *initialization) giveUp(change func(*state)) error {
	if i.file.state.AK == nil {
		return i.file.save(change)
	}
	kept, err := atomicfile.Aside(i.file.path, ".lost")
	if err != nil {
		return fmt.Errorf("enroll: state file: %w", err)
	}
	err = i.file.save(change)
	if err != nil && !errors.Is(err, atomicfile.ErrUnsynced) {
		return errors.Join(err, os.Remove(kept)) // a second name of what stays
	}
	if i.GivenUp != nil {
		i.GivenUp(kept)
	}
	return err
}

// makeKeys makes the missing LDevIDs. A device with a new one has to enroll again.
func (i *initialization) makeKeys() error {
	if i.NewKeys {
		if err := i.file.save(func(s *state) { s.Keys, s.Next, s.Identity, s.Last = nil, nil, nil, nil }); err != nil {
			return err
		}
	}
	for _, a := range i.Algorithms {
		if n := slices.IndexFunc(i.file.state.Keys, func(b tpm.Blob) bool { return b.Algorithm == a }); n >= 0 {
			if err := i.loads(i.file.state.Keys[n]); err != nil {
				return err
			}
			continue
		}
		k, err := i.create(a, false)
		if err != nil {
			return err
		}
		err = i.file.save(func(s *state) { s.Keys, s.Identity, s.Last = append(s.Keys, k), nil, nil })
		if err != nil {
			return err
		}
	}
	return nil
}
