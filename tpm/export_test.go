package tpm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/statefile"
)

// CheckState reads the text of a state file as if its checksum were right. Writing and
// reading it again must give the same, and using its keys must not panic.
func CheckState(text []byte) error {
	data, _ := statefile.Join(stateMagic, text)
	f, _, err := parseState(data)
	if err != nil {
		return fmt.Errorf("%w: %w", keystore.ErrBadData, err)
	}
	data, sum, err := f.bytes()
	if err != nil {
		return err
	}
	again, sum2, err := parseState(data)
	if err != nil || sum != sum2 {
		return fmt.Errorf("written and read: %w", err)
	}
	if data2, _, err := again.bytes(); err != nil || !bytes.Equal(data, data2) {
		return fmt.Errorf("written and read, another state: %w", err)
	}
	s := newStore(&storage{key: newObject(nil, f.StorageKey.Public, nil)}, &state{file: f}, nil)
	_, err = s.List()
	return err
}

// OpenFile opens what need not be a character device.
func OpenFile(path string) (io.ReadWriteCloser, error) { return openFile(path) }

// Unmanaged reports whether a device is flushed when it is opened.
func Unmanaged(path string) bool { return unmanaged(path) }

// ProvisionKeyPair makes the next version of a provisioned key of an RSA key that this
// process has, as a test wants it that knows what comes of the key.
func (s *Store) ProvisionKeyPair(label string, a keystore.Algorithm, key crypto.Signer) (keystore.Version, error) {
	private, ok := key.(*rsa.PrivateKey)
	t, err := template(a, duplicated, false)
	if err != nil || !ok || private.E != 65537 {
		return keystore.Version{}, fmt.Errorf("tpm: provision %T as %v: %w", key, a, errors.ErrUnsupported)
	}
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: private.N.Bytes()})
	d := keystore.Duplicated{Public: tpm2.Marshal(t)}
	sensitive := binary.BigEndian.AppendUint16(nil, uint16(t.Type))
	sensitive = append16(append16(append16(sensitive, nil), nil), private.Primes[0].Bytes())
	parent, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.storage.key.public)
	if err != nil {
		return keystore.Version{}, err
	}
	to, err := tpm2.ImportEncapsulationKey(parent)
	if err != nil {
		return keystore.Version{}, err
	}
	if d.Duplicate, d.Seed, err = tpm2.CreateDuplicate(rand.Reader, to, nameOf(d.Public), sensitive); err != nil {
		return keystore.Version{}, err
	}
	return s.provisioned.add(label, a, func() (*object, error) {
		return s.storage.importDuplicate(s.storage.key, s.storage.open, a, d)
	})
}

// MakeWay lets other processes have their turn, as after a second.
func (d *Device) MakeWay() { d.makeWay() }

// Break ends the connection as a TPM does that is restarted, and returns the timer of its stay.
func (d *Device) Break() (stay *time.Timer) {
	<-d.turn
	defer d.unlock()
	d.resources.lose()
	return d.stay
}

// FindPersistent returns the handle of the persistent key with a TPM Name.
func (d *Device) FindPersistent(name []byte) (tpm2.TPMHandle, error) {
	var at uint32
	err := d.Do(func(transport.TPM) (err error) {
		at, _, err = d.tpm.find(name)
		return err
	})
	return tpm2.TPMHandle(at), err
}
