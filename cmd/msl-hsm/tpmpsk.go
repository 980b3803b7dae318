package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

// pskSuffix ends the identity that an enrolled device has by pre-shared keys: its
// name is registered with its identity key.
const pskSuffix = "-psk"

// A storageProof is the storage key of a TPM, for which the AK vouches.
type storageProof struct {
	Public    []byte          `json:"public"`    // TPMT_PUBLIC
	Attest    []byte          `json:"attest"`    // TPMS_ATTEST
	Signature []byte          `json:"signature"` // TPMT_SIGNATURE
	Nonce     enroll.HexBytes `json:"nonce"`
}

// A wrappedPSK is a pre-shared key set on its way into a TPM.
type wrappedPSK struct {
	Identity   string     `json:"identity"`
	Encryption wrappedKey `json:"encryption"`
	MAC        wrappedKey `json:"mac"`
	Revealing  wrappedKey `json:"revealing"`
}

// A wrappedKey is a keystore.Duplicated.
type wrappedKey struct {
	Public    []byte `json:"public"`
	Duplicate []byte `json:"duplicate"`
	Seed      []byte `json:"seed"`
}

func parseNonce(text string) ([]byte, error) {
	nonce, err := parseHex("--nonce", text)
	if err == nil && (len(nonce) < 16 || len(nonce) > 32) {
		err = usagef("--nonce: a nonce must be 16 to 32 bytes long, not %d", len(nonce))
	}
	return nonce, err
}

// forProvisioning is what the AK certifies beside the storage key.
func forProvisioning(nonce []byte) []byte {
	sum := sha256.Sum256(append([]byte("MSL PSK provisioning 1"), nonce...))
	return sum[:]
}

func (p *program) tpmStorage() *cobra.Command {
	var nonce string
	c := &cobra.Command{
		Use:   "storage --nonce HEX",
		Short: "Prove the storage key of this machine's TPM, as JSON",
		Long: `Prints the storage key of this machine's TPM, with the word of its attestation key
that it is there. A server that enrolled this machine wraps pre-shared keys for it:
see msl-hsm entity add --help.`,
		Args: want(),
		RunE: func(*cobra.Command, []string) error {
			n, err := parseNonce(nonce)
			if err != nil {
				return err
			}
			return p.withMachine(false, func(_ *config, m *machine) error {
				proof, err := m.proveStorage(n)
				if err != nil {
					return err
				}
				return printJSON(p.stdout, proof)
			})
		},
	}
	c.Flags().StringVar(&nonce, "nonce", "", "16 to 32 bytes from the server's operator, as hexadecimal `DIGITS`")
	return c
}

func (m *machine) proveStorage(nonce []byte) (*storageProof, error) {
	_, public, err := m.store.StorageKey()
	if err != nil {
		return nil, err
	}
	proof := &storageProof{Public: tpm2.Marshal(public), Nonce: nonce}
	proof.Attest, proof.Signature, err = m.identity.Certify(m.store.WithStorageKey, forProvisioning(nonce))
	return proof, err
}

// provenStorage returns the storage key in the TPM of a device that enrolled here.
func (c *config) provenStorage(device string, f entityFlags) (public []byte, err error) {
	nonce, err := parseNonce(f.nonce)
	if err != nil {
		return nil, err
	}
	var proof storageProof
	if err := readObject("storage key", f.storage, &proof); err != nil {
		return nil, err
	}
	if c.Server.Enrollment.State == "" {
		return nil, usagef("devices cannot enroll here: set server.enrollment.state in the configuration")
	}
	all, err := c.openEnrollments(false)
	if err != nil {
		return nil, err
	}
	defer closing(&err, all)
	err = all.Certified(CertifiedKey{
		Device: device, Public: proof.Public, Attest: proof.Attest, Signature: proof.Signature, Qualifying: forProvisioning(nonce),
	})
	if err != nil {
		return nil, fmt.Errorf("%s does not prove the storage key of device %q for this nonce: %w", f.storage, printable(device), err)
	}
	return proof.Public, nil
}

// writeWrapped writes the keys for the TPM that has the storage key.
func (k *pskFile) writeWrapped(path string, storage []byte) error {
	set := wrappedPSK{Identity: k.Identity}
	for _, key := range []struct {
		to  *wrappedKey
		a   keystore.Algorithm
		raw []byte
	}{
		{&set.Encryption, keystore.AES128CBC, k.Encryption},
		{&set.MAC, keystore.HMACSHA256, k.MAC},
		{&set.Revealing, keystore.AESReveal128, k.Wrapping},
	} {
		d, err := tpm.Duplicate(storage, key.a, key.raw)
		if err != nil {
			return err
		}
		*key.to = wrappedKey(d)
	}
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Create(path, append(text, '\n'), atomicfile.DefaultMode); err != nil {
		return fmt.Errorf("pre-shared keys: %w", err)
	}
	return nil
}

func (p *program) tpmImportPSK() *cobra.Command {
	return &cobra.Command{
		Use:   "import-psk FILE",
		Short: "Take pre-shared keys into this machine's TPM",
		Long: `Takes pre-shared keys that msl-hsm entity add --tpm-psk wrapped for this machine's TPM
into it, as IDENTITY-encryption, IDENTITY-mac and IDENTITY-revealing. Be sure that
FILE is from the server: whoever made it has the keys. Then

  msl-hsm send --identity IDENTITY --psk-keys IDENTITY

uses them. A TPM unwraps no session keys as SYMMETRIC_WRAPPED needs it. They come by
TPM_IMPORT, or with --custody imported by ASYMMETRIC_WRAPPED or, through
IDENTITY-revealing, with --key-exchange JWE_LADDER or JWK_LADDER.`,
		Args: want("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			return p.withMachine(false, func(_ *config, m *machine) error { return p.importPSK(m, args[0]) })
		},
	}
}

func (p *program) importPSK(m *machine, path string) error {
	var set wrappedPSK
	if err := readObject("pre-shared keys", path, &set); err != nil {
		return err
	}
	name, _, err := m.identity.Credentials()
	if err != nil {
		return err
	}
	if set.Identity != name+pskSuffix {
		return usagef("the keys in %s are those of %q, and this machine is %q", path, printable(set.Identity), printable(name))
	}
	incoming := []incomingKey{
		{label: keystore.RolePSKEncryption.Label(set.Identity), algorithm: keystore.AES128CBC},
		{label: keystore.RolePSKMAC.Label(set.Identity), algorithm: keystore.HMACSHA256},
		{label: keystore.RolePSKRevealing.Label(set.Identity), algorithm: keystore.AESReveal128},
	}
	var done []keystore.Version
	for n, k := range []wrappedKey{set.Encryption, set.MAC, set.Revealing} {
		v, err := m.store.ImportDuplicate(incoming[n].label, incoming[n].algorithm, keystore.Duplicated(k))
		if errors.Is(err, keystore.ErrBadData) {
			err = fmt.Errorf("%s is damaged, or for another TPM: %w", path, err)
		}
		if err != nil {
			return errors.Join(err, takeBack(m.store, incoming[:n], done))
		}
		done = append(done, v)
	}
	for n, v := range done {
		fmt.Fprintf(p.stdout, "imported %s version %d %v\n", incoming[n].label, v.Number, incoming[n].algorithm)
	}
	return nil
}

// readObject reads a file of one JSON object, which is not secret.
func readObject(what, path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return usagef("%s: %w", what, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(text) > maxSecret {
		err = fmt.Errorf("it has more than %d bytes", maxSecret)
	}
	if err != nil {
		return usagef("%s: %s: %w", what, path, err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return usagef("%s: %s: %w", what, path, err)
	}
	return nil
}
