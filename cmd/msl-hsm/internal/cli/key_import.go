package cli

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/keystore"
)

type importFlags struct{ set, algorithm, file string }

func keyImportCommand(p *program) *cobra.Command {
	var f importFlags
	c := &cobra.Command{
		Use:   "import NAME --file FILE | --set SET --file FILE",
		Short: "Import keys from a file into the key store",
		Long: `Imports a key from a file into the key store as a provisioned key, or as the next
version of an existing one. The file must be readable by its owner only. Delete it
once the key is in place: a key that has been in a file no longer counts as
generated in hardware.

A private key is in PEM (PKCS #8, PKCS #1 or SEC 1) and is used for signing, unless
--algorithm says otherwise; PKCS #11 tokens accept no private keys. A secret key is
raw, Base64 or hexadecimal, and --algorithm says what it is for.

A TSS2 PRIVATE KEY in PEM is another program's key in the same TPM, as written by
tpm2-openssl and go-tpm-keyfiles, or a key that another machine wrapped for this TPM.
Only this TPM loads it, under a persistent storage key or the owner hierarchy. Its
password, if it has one, must be the PIN of the key store.

With --set several keys come from a JSON object of encryption, mac and wrapping,
each in Base64:

  issuer       encryption and mac of an issuer that others share, for
               server.custody shared, and its wrapping key if it is there
  service      encryption and mac of service tokens
  psk          the pre-shared keys of this device, under labels that begin with
               NAME; wrapping is derived from the others where it is missing
  psk-ladder   the same, and the wrapping key once more to reveal keys to this
               process, which JWE_LADDER and JWK_LADDER need: with it, anyone
               who has the PIN can read keys that were wrapped for this device

The MAC key of psk and psk-ladder is kept as hmac-sha256-block, padded with zeros:
it computes the same tags, and the wrapping key cannot be computed from it and the
encryption key. --algorithm hmac-sha256-block takes a MAC key of 32 bytes, too.`,
		RunE: func(_ *cobra.Command, args []string) error {
			named := len(args) == 1
			switch {
			case f.file == "":
				return exit.Usagef("key import needs --file FILE: keys do not belong on a command line")
			case len(args) > 1 || f.set != "" && f.algorithm != "":
				return exit.Usagef("key import takes either --set, or NAME and --algorithm")
			case named == (f.set == "issuer" || f.set == "service"):
				return exit.Usagef("key import needs NAME, except with --set issuer or --set service")
			}
			return importKeys(p, strings.Join(args, ""), f)
		},
	}
	c.Flags().StringVar(&f.file, "file", "", "import the key from this `FILE`")
	c.Flags().StringVar(&f.set, "set", "", "import all keys of a `SET`: issuer, service, psk or psk-ladder")
	c.Flags().StringVar(&f.algorithm, "algorithm", "", "`ALGORITHM` that the key is for")
	completeFlag(c, "set", "issuer", "service", "psk", "psk-ladder")
	return c
}

// An incoming key is about to be imported into the store: a secret key, a key pair, or a
// key already in the TPM.
type incomingKey struct {
	label     string
	algorithm keystore.Algorithm
	raw       []byte
	pair      crypto.Signer
	tss2      []byte // the file of a key in a TPM
}

func importKeys(p *program, name string, f importFlags) (err error) {
	if err := config.CheckLabel(name); err != nil {
		return err
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	incoming, wipe, err := readIncoming(c, name, f)
	if err != nil {
		return err
	}
	defer wipe()
	store, err := keys.Make(c)
	if err != nil {
		return err
	}
	defer exit.Closing(&err, store)
	if f.set == "issuer" || f.set == "service" {
		if err := inStep(store, incoming); err != nil {
			return err
		}
	}
	done, err := takeAll(store, incoming)
	var labels []string
	for _, k := range incoming {
		labels = append(labels, k.label)
	}
	if err := tellKeys(c, store, "key import", strings.Join(labels, ", "), err); err != nil {
		return err
	}
	for n, k := range incoming {
		fmt.Fprintf(p.stdout, "imported %s version %d %v\n", k.label, done[n].Number, k.algorithm)
	}
	return nil
}

// readIncoming reads keys from a file, before any store is opened or made.
func readIncoming(c *config.Config, name string, f importFlags) ([]incomingKey, func(), error) {
	if f.set != "" {
		return readSet(c, name, f)
	}
	k := incomingKey{label: name}
	var err error
	if f.algorithm != "" {
		if k.algorithm, err = keystore.ParseAlgorithm(f.algorithm); err != nil {
			return nil, nil, exit.Usagef("unknown algorithm %q; want one of %s", f.algorithm, exit.List(keystore.Algorithms()))
		}
	}
	text, err := keys.ReadPrivate(f.file)
	if err != nil {
		return nil, nil, exit.WithCode(fmt.Errorf("key to import: %s: %w", f.file, err), exit.Secret)
	}
	defer text.Close()
	switch {
	case bytes.Contains(text.Bytes(), []byte("-----BEGIN TSS2 PRIVATE KEY-----")):
		err = k.readTSS2(f.file, text.Bytes())
	case bytes.Contains(text.Bytes(), []byte("-----BEGIN TSS KEY BLOB-----")), bytes.Contains(text.Bytes(), []byte("-----BEGIN TSS2 KEY BLOB-----")):
		err = inFile(f.file, exit.Usagef("a key of a TPM 1.2, or in the form that preceded TSS2 PRIVATE KEY: make a new one with the program that it belongs to"))
	case bytes.Contains(text.Bytes(), []byte("-----BEGIN")):
		err = inFile(f.file, k.readPair(text.Bytes()))
	default:
		if err = k.readSecret(text.Bytes()); err != nil {
			err = inFile(f.file, cmp.Or(halfOfTPM(text.Bytes()), err))
		}
	}
	return []incomingKey{k}, func() { clear(k.raw) }, err
}

// inFile adds the name of the file to an error about its content.
func inFile(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("key to import: %s: %w", path, err)
}

// takeAll imports every key into the store, or none.
func takeAll(store keys.Store, incoming []incomingKey) ([]keystore.Version, error) {
	var done []keystore.Version
	for n, k := range incoming {
		v, err := k.take(store)
		if err != nil {
			return nil, errors.Join(err, takeBack(store, incoming[:n], done))
		}
		done = append(done, v)
	}
	return done, nil
}

// take imports a provisioned key. A store may not accept keys from outside, or not that
// kind.
func (k *incomingKey) take(store keys.Store) (v keystore.Version, err error) {
	if k.tss2 != nil {
		return k.takeTSS2(store)
	}
	err = errors.ErrUnsupported
	if k.pair != nil {
		if taker, ok := store.(interface {
			ProvisionKeyPair(label string, a keystore.Algorithm, key crypto.Signer) (keystore.Version, error)
		}); ok {
			v, err = taker.ProvisionKeyPair(k.label, k.algorithm, k.pair)
		}
	} else if taker, ok := store.(keystore.Provisioner); ok {
		v, err = taker.Provision(k.label, k.algorithm, k.raw)
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, keystore.ErrWrongKey):
		return v, exit.Usagef("this key store does not import %v keys: make one in it with %s", k.algorithm, exit.Command("key create", k.label, "--algorithm "+k.algorithm.String()))
	case errors.Is(err, keystore.ErrExists):
		return v, k.taken(err)
	case err != nil:
		return v, fmt.Errorf("import key %q: %w", k.label, err)
	}
	return v, nil
}

// taken is the error for a label that has a key for something else.
func (k *incomingKey) taken(err error) error {
	return fmt.Errorf("import key %q: %w: give another label, or if nobody needs that key, make room with %s", k.label, err, exit.Command("key destroy", k.label, "--yes"))
}

func (k *incomingKey) readSecret(text []byte) (err error) {
	if !k.algorithm.Valid() || !k.algorithm.Secret() {
		return exit.Usagef("the file is not PEM, so it holds a secret key: --algorithm must name its use, such as aes128-cbc; a private key must be in PEM")
	}
	size := k.algorithm.Size()
	if k.algorithm == keystore.HMACSHA256Block {
		size = keystore.HMACSHA256.Size() // 64 bytes could be a key of this size in hexadecimal
	}
	if k.raw, err = secretBytes(text, size); err != nil {
		return exit.WithCode(err, exit.Secret)
	}
	if k.algorithm == keystore.HMACSHA256Block {
		plain := k.raw
		k.raw = keystore.HMACBlock(plain)
		clear(plain)
	}
	return nil
}

// secretBytes reads a key of size bytes: raw, in hexadecimal or in Base64. For a given
// size these differ in length.
func secretBytes(text []byte, size int) ([]byte, error) {
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text))+size)
	trimmed := bytes.TrimSpace(text)
	n, err := 0, error(nil)
	switch {
	case len(text) == size:
		n = copy(raw, text)
	case len(trimmed) == hex.EncodedLen(size):
		n, err = hex.Decode(raw, trimmed)
	case len(trimmed) == base64.StdEncoding.EncodedLen(size):
		n, err = base64.StdEncoding.Decode(raw, trimmed)
	}
	if err != nil || n != size {
		clear(raw)
		return nil, fmt.Errorf("the file holds no key of %d bytes, neither raw nor in Base64 nor in hexadecimal", size)
	}
	return raw[:n], nil
}

func (k *incomingKey) readPair(text []byte) (err error) {
	if k.pair, err = parsePrivate(text); err != nil {
		return exit.WithCode(err, exit.Secret)
	}
	fits := pairAlgorithms(k.pair)
	if len(fits) == 0 {
		return exit.Usagef("no algorithm uses private keys of this kind or size: want RSA of 2048, 3072 or 4096 bits, P-256 or P-384")
	}
	if k.algorithm == 0 {
		k.algorithm = fits[0]
	}
	if !slices.Contains(fits, k.algorithm) {
		return exit.Usagef("the private key is not for %v: want one of %s", k.algorithm, exit.List(fits))
	}
	return nil
}

// parsePrivate reads a PEM private key, which its parameters or certificate may precede.
// The parsed key cannot be wiped, and stays in memory until the process ends.
func parsePrivate(text []byte) (crypto.Signer, error) {
	block, rest := pem.Decode(text)
	for block != nil && !strings.HasSuffix(block.Type, "PRIVATE KEY") && bytes.Contains(rest, []byte("PRIVATE KEY-----")) {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("the file has no complete PEM block")
	}
	defer clear(block.Bytes)
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("PEM block %q: want PRIVATE KEY, without a passphrase", block.Type)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the PEM block holds no private key that signs") // the cause might quote it
	}
	return signer, nil
}

// pairAlgorithms returns the algorithms that a key pair can be used for, signing first.
func pairAlgorithms(key crypto.Signer) []keystore.Algorithm {
	switch k := key.Public().(type) {
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return []keystore.Algorithm{keystore.RSASign2048, keystore.RSAUnwrap2048, keystore.RSADecrypt2048, keystore.RSAPSS2048}
		case 3072:
			return []keystore.Algorithm{keystore.RSASign3072, keystore.RSAUnwrap3072, keystore.RSADecrypt3072, keystore.RSAPSS3072}
		case 4096:
			return []keystore.Algorithm{keystore.RSASign4096, keystore.RSAUnwrap4096, keystore.RSADecrypt4096, keystore.RSAPSS4096}
		}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []keystore.Algorithm{keystore.ECDSAP256}
		case 384:
			return []keystore.Algorithm{keystore.ECDSAP384}
		}
	}
	return nil
}

// rolesOf returns the roles of a set's keys, in the order of a key file: encryption,
// MAC, and the halves of the wrapping key.
func rolesOf(set string) []keystore.Role {
	psk := []keystore.Role{keystore.RolePSKEncryption, keystore.RolePSKMAC, keystore.RolePSKWrapping}
	return map[string][]keystore.Role{
		"issuer":     {keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC, keystore.RoleIssuerWrapping, keystore.RoleIssuerRevealing},
		"service":    {keystore.RoleServiceEncryption, keystore.RoleServiceMAC},
		"psk":        psk,
		"psk-ladder": append(psk, keystore.RolePSKRevealing),
	}[set]
}

func readSet(c *config.Config, name string, f importFlags) ([]incomingKey, func(), error) {
	prefix, roles := c.Keystore.Prefix, rolesOf(f.set)
	if roles == nil {
		return nil, nil, exit.Usagef("unknown set %q: want issuer, service, psk or psk-ladder", f.set)
	}
	psk := f.set == "psk" || f.set == "psk-ladder"
	k, err := keys.ReadKeySet(f.file, psk)
	if err != nil {
		return nil, nil, err
	}
	raw, wipe := [][]byte{k.Encryption, k.MAC, k.Wrapping, k.Wrapping}, k.Wipe
	if psk {
		prefix, raw[1] = name, keystore.HMACBlock(k.MAC)
		wipe = func() { k.Wipe(); clear(raw[1]) }
	}
	if k.Wrapping == nil {
		roles = roles[:2]
	}
	var all []incomingKey
	for i, r := range roles {
		all = append(all, incomingKey{label: r.Label(prefix), algorithm: r.Algorithm(), raw: raw[i]})
	}
	return all, wipe, nil
}

// takeBack destroys the imported keys of an incomplete set.
func takeBack(store keys.Store, incoming []incomingKey, done []keystore.Version) error {
	var errs []error
	for n, v := range done {
		errs = append(errs, store.Destroy(incoming[n].label, v.Number))
	}
	return errors.Join(errs...)
}

// inStep refuses to continue with key pairs whose versions differ: the next versions
// would not belong together.
func inStep(store keystore.Admin, pairs []incomingKey) error {
	have, err := keys.Newest(store)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		a, b := pairs[i].label, pairs[i+1].label
		if have[a].Version != have[b].Version {
			return exit.Usagef("the newest version of key %q is %d, and of %q %d: first destroy the versions without a counterpart", a, have[a].Version, b, have[b].Version)
		}
	}
	return nil
}
