package cli

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/tpm/fleet"
)

type entityFlags struct {
	state, scheme, pskFile, generatePSK, publicKey, rsaKey, keyID string
	storage, nonce, out                                           string
	x509, none, tpmPSK, deriveWrapping                            bool
	keyExchanges, userSchemes                                     []string

	storageKey []byte // of --tpm-psk, proven
	derived    bool   // the wrapping key in pskFile is derived from the others
}

func entityAddCommand(p *program) *cobra.Command {
	var f entityFlags
	c := &cobra.Command{
		Use:   "add IDENTITY --psk-file FILE | --generate-psk FILE | --tpm-psk | --public-key FILE | --scheme SCHEME",
		Short: "Register an entity",
		Long: `Registers an entity, with the one scheme by which it proves its identity:

  PSK, PSK_PROFILE  --psk-file or --generate-psk. The keys are sealed by the key
                    store before they are kept. With --scheme PSK_PROFILE they
                    belong to all entities IDENTITY-PROFILE. With --tpm-psk
                    they are for the TPM of an enrolled device, see below
  RSA, ECC          --public-key, depending on its kind
  X509              a certificate under the configured roots. IDENTITY is its
                    subject as RFC 2253 writes it
  MGK               keys of a model group: --generate-psk writes them, derived
                    from the group's key and IDENTITY
  NONE              nothing: whoever claims the identity is believed
  NONE_SUFFIXED     nothing: whoever claims an identity IDENTITY.SUFFIX is

--generate-psk and --tpm-psk generate all three keys at random: encryption, MAC and the
wrapping key of SYMMETRIC_WRAPPED. Use --derive-wrapping for a device that is given
only the first two and derives the wrapping key from them, as the reference stacks do.
It is also derived if the file of --psk-file has none. Prefer a random wrapping key:
anyone who obtains the other two keys knows the derived one.

With X509 and MGK, an entity needs no registration, except to restrict it. PROVISIONED
entities have no identity until they are given one, and an entity hidden by
MT_PROTECTED is registered for the scheme that is hidden.

With --tpm-psk, IDENTITY is the name of an enrolled device. In addition it gets
pre-shared keys, and with them the identity IDENTITY-psk:

  at the device   msl-hsm tpm storage --nonce HEX, which prints FILE1
  here            msl-hsm entity add NAME --tpm-psk --storage FILE1 --nonce HEX --out FILE2
  at the device   msl-hsm tpm import-psk FILE2

HEX is random, and new each time. FILE1 proves that the storage key is in the TPM of
that device. FILE2 has the keys, wrapped for it; nothing in FILE2 proves who made it,
so protect it from changes on its way. msl-hsm enrollment revoke ends this identity
too. If the device's TPM was replaced, remove the entity and add it again.`,
		Args: want("IDENTITY"),
		RunE: func(_ *cobra.Command, args []string) error { return addEntity(p, args[0], f) },
	}
	stateFlag(c, &f.state)
	c.Flags().StringVar(&f.scheme, "scheme", "", "the entity `SCHEME` (default: inferred from the other flags)")
	c.Flags().StringVar(&f.pskFile, "psk-file", "", "pre-shared keys from this `FILE`")
	c.Flags().StringVar(&f.generatePSK, "generate-psk", "", "generate keys and write them to this new `FILE`, for the device")
	c.Flags().BoolVar(&f.deriveWrapping, "derive-wrapping", false, "with --generate-psk: derive the wrapping key, for a device that does so itself")
	c.Flags().BoolVar(&f.tpmPSK, "tpm-psk", false, "make keys for the TPM of the enrolled device IDENTITY")
	c.Flags().StringVar(&f.storage, "storage", "", "output of msl-hsm tpm storage on the device, in this `FILE`")
	c.Flags().StringVar(&f.nonce, "nonce", "", "the nonce given to msl-hsm tpm storage, as hexadecimal `DIGITS`")
	c.Flags().StringVar(&f.out, "out", "", "write the wrapped keys to this new `FILE`, for the device")
	c.Flags().StringVar(&f.publicKey, "public-key", "", "RSA or EC public key from this PEM `FILE`")
	c.Flags().StringVar(&f.keyID, "key-id", "", "`ID` of the public key (default derived from the key)")
	c.Flags().StringSliceVar(&f.keyExchanges, "key-exchanges", nil, "`SCHEMES` of key exchange that it may use (default all)")
	c.Flags().StringSliceVar(&f.userSchemes, "user-schemes", nil, "`SCHEMES` of user authentication that it may use (default all)")
	f.shorthand(c)
	return c
}

// shorthand applies older flags with the same meaning.
func (f *entityFlags) shorthand(c *cobra.Command) {
	c.Flags().StringVar(&f.rsaKey, "rsa-public-key", "", "RSA public key from this PEM `FILE`")
	c.Flags().BoolVar(&f.x509, "x509", false, "the same as --scheme X509")
	c.Flags().BoolVar(&f.none, "none", false, "the same as --scheme NONE")
	for _, name := range []string{"rsa-public-key", "x509", "none"} {
		c.Flags().MarkHidden(name)
	}
}

// settle determines the scheme from the flags, which can select it in several ways, and
// checks their combination.
func (f *entityFlags) settle() error {
	keys := 0
	for _, given := range []bool{f.pskFile != "", f.generatePSK != "", f.tpmPSK, f.publicKey != "", f.rsaKey != "", f.x509, f.none} {
		if given {
			keys++
		}
	}
	if keys > 1 || keys == 0 && f.scheme == "" || f.scheme != "" && (f.x509 || f.none || f.rsaKey != "") {
		return exit.Usagef("give one of --psk-file, --generate-psk, --tpm-psk, --public-key or --scheme; add --scheme if the keys fit several schemes")
	}
	switch whole := f.storage != "" && f.nonce != "" && f.out != ""; {
	case f.tpmPSK != whole || !f.tpmPSK && f.storage+f.nonce+f.out != "":
		return exit.Usagef("--tpm-psk goes with --storage FILE, --nonce HEX and --out FILE")
	case f.deriveWrapping && (f.generatePSK == "" || f.scheme == "MGK"):
		return exit.Usagef("--derive-wrapping goes with --generate-psk FILE, for the schemes PSK and PSK_PROFILE")
	case f.tpmPSK && f.scheme != "" && f.scheme != "PSK":
		return exit.Usagef("--tpm-psk is for the scheme PSK, not for %s", f.scheme)
	}
	switch {
	case f.x509:
		f.scheme = "X509"
	case f.none:
		f.scheme = "NONE"
	case f.scheme == "" && (f.pskFile != "" || f.generatePSK != "" || f.tpmPSK):
		f.scheme = "PSK"
	}
	if err := config.CheckNames(f.keyExchanges, config.ExchangeSchemes()); err != nil {
		return exit.Usagef("--key-exchanges: %w", err)
	}
	if err := config.CheckNames(f.userSchemes, config.UserSchemeNames()); err != nil {
		return exit.Usagef("--user-schemes: %w", err)
	}
	return f.fits()
}

// fits checks that the scheme and the keys match.
func (f *entityFlags) fits() error {
	var keys string
	switch f.scheme {
	case "": // by the public key
		return nil
	case "PSK", "PSK_PROFILE":
		if f.pskFile == "" && f.generatePSK == "" && !f.tpmPSK {
			return exit.Usagef("scheme %s needs --psk-file FILE or --generate-psk FILE", f.scheme)
		}
		keys = f.publicKey
	case "RSA", "ECC":
		if f.publicKey == "" {
			return exit.Usagef("scheme %s needs --public-key FILE", f.scheme)
		}
	case "MGK":
		keys = f.pskFile + f.publicKey
	case "X509", "NONE", "NONE_SUFFIXED":
		keys = f.pskFile + f.generatePSK + f.publicKey
	case "PROVISIONED":
		return exit.Usagef("entities of the scheme PROVISIONED cannot be registered: they have no identity until the server gives them one")
	case "MT_PROTECTED":
		return exit.Usagef("an entity that MT_PROTECTED hides is registered for the scheme that is hidden")
	default:
		return exit.Usagef("unknown entity scheme %q: want one of %s", f.scheme, strings.Join(config.EntitySchemeNames(), ", "))
	}
	if keys != "" {
		return exit.Usagef("scheme %s does not take the keys in %s", f.scheme, keys)
	}
	return nil
}

func addEntity(p *program, identity string, f entityFlags) (err error) {
	if err := f.settle(); err != nil {
		return err
	}
	identity = msl.CanonicalName(identity) // before keys are sealed for it
	c, err := p.configure()
	if err != nil {
		return err
	}
	c.Server.State.Override(f.state)
	own := admin.KeysOf(c)
	defer exit.Closing(&err, own)
	if f.tpmPSK {
		if f.storageKey, err = provenStorage(c, own, identity, f.storage, f.nonce); err != nil {
			return err
		}
		identity = fleet.PSKIdentity(identity)
	}
	e := state.EntityRecord{Identity: identity, Scheme: f.scheme, KeyExchanges: f.keyExchanges, UserSchemes: f.userSchemes}
	made, err := own.MakeState()
	if err != nil {
		return err
	}
	state, err := own.Registry()
	if err != nil {
		return err
	}
	defer exit.Closing(&err, state)
	if err := giveKeys(c, own, state, &e, &f); err != nil {
		return err
	}
	if err := state.AddEntity(e); err != nil {
		return undo(f.generatePSK+f.out, err)
	}
	tellRegistered(p, e, f.generatePSK+f.out)
	tellMade(p.stderr, made, c.Server.State.Path())
	if f.derived {
		fmt.Fprintln(p.stdout, keys.TellDerived)
	}
	return nil
}

// giveKeys adds the keys that a scheme needs to a record.
func giveKeys(c *config.Config, own *admin.Keys, to admin.Registry, e *state.EntityRecord, f *entityFlags) error {
	switch e.Scheme {
	case "X509", "NONE", "NONE_SUFFIXED":
		return nil
	case "MGK":
		return groupMember(c, own, e.Identity, f.generatePSK)
	case "PSK", "PSK_PROFILE":
		return pskEntity(c, own, to, e, f)
	}
	return publicKeyEntity(e, f)
}

func tellRegistered(p *program, e state.EntityRecord, psk string) {
	fmt.Fprintf(p.stdout, "registered %s with scheme %s", exit.Printable(e.Identity), e.Scheme)
	if e.KeyID != "" {
		fmt.Fprintf(p.stdout, ", key id %s", exit.Printable(e.KeyID))
	}
	if psk != "" {
		fmt.Fprintf(p.stdout, "; give %s to the device", psk)
	}
	fmt.Fprintln(p.stdout)
}

// writePSK writes a key set to a new file.
func writePSK(k *entityauth.PSKFile, path string) error { return elsewhere(k.Write(path)) }

// elsewhere says what to do if a new file exists.
func elsewhere(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: name another file, or move that one away", err)
	}
	return err
}

// undo removes a key file that was not registered. If it may have been, nobody else has the keys.
func undo(path string, err error) error {
	if path == "" {
		return err
	}
	if admin.Uncertain(err) {
		return fmt.Errorf("%w; the keys are in %s: give it to the device if msl-hsm entity list has the entity, else remove it", err, path)
	}
	return errors.Join(err, os.Remove(path))
}

func publicKeyEntity(e *state.EntityRecord, f *entityFlags) error {
	public, err := keys.ReadPublicKey(f.publicKey + f.rsaKey)
	if err != nil {
		return err
	}
	scheme := "RSA"
	if _, ok := public.(*ecdsa.PublicKey); ok {
		scheme = "ECC"
	}
	if f.rsaKey != "" && scheme != "RSA" || f.scheme != "" && scheme != f.scheme {
		return exit.Usagef("public key: %s is for the scheme %s", f.publicKey+f.rsaKey, scheme)
	}
	e.Scheme, e.KeyID = scheme, f.keyID
	if e.KeyID == "" {
		if e.KeyID, err = keystore.KeyID(public); err != nil {
			return err
		}
	}
	e.PublicKey, err = x509.MarshalPKIXPublicKey(public)
	return err
}

// newPSK reads a key set from a file, or draws one.
func newPSK(c *config.Config, store keys.Store, identity string, f *entityFlags) (k *entityauth.PSKFile, err error) {
	if f.pskFile != "" {
		if k, err = keys.ReadPSK(f.pskFile); err == nil {
			f.derived = k.Derived()
		}
		return k, err
	}
	random, err := keys.Random(c, store)
	if err != nil {
		return nil, err
	}
	if random == nil {
		return entityauth.NewPSKFile(identity, f.deriveWrapping), nil
	}
	defer exit.Closing(&err, random)
	return entityauth.DrawPSKFile(random, identity, f.deriveWrapping)
}

// pskEntity gives an entity a key set, sealed by the key store.
func pskEntity(c *config.Config, own *admin.Keys, to admin.Registry, e *state.EntityRecord, f *entityFlags) error {
	store, err := own.Store()
	if err != nil {
		return err
	}
	if err := admin.PairRegistry(c, to, store); err != nil {
		return err
	}
	k, err := newPSK(c, store, e.Identity, f)
	if err != nil {
		return err
	}
	defer k.Wipe()
	if k.Identity != "" && msl.CanonicalName(k.Identity) != e.Identity {
		return exit.Usagef("the keys in %s are those of %q, not of %q", f.pskFile, k.Identity, e.Identity)
	}
	k.Identity = e.Identity
	if e.PSK, err = keys.SealPSK(k, store); err != nil {
		return err
	}
	switch {
	case f.tpmPSK:
		return elsewhere(keys.WriteWrapped(k, f.out, f.storageKey))
	case f.generatePSK != "":
		return writePSK(k, f.generatePSK)
	}
	return nil
}

// groupMember writes the keys of an entity of a model group. The server derives them
// whenever it needs them.
func groupMember(c *config.Config, own *admin.Keys, identity, path string) error {
	prefix, found := serverside.LongestPrefix(c.Server.ModelGroups, identity)
	if !found {
		return exit.Usagef("server.model-groups has no group for %q", identity)
	}
	if path == "" {
		return nil
	}
	store, err := own.Store()
	if err != nil {
		return err
	}
	group, err := serverside.GroupKey(store, c.Server.ModelGroups[prefix])
	if err != nil {
		return err
	}
	raw, err := entityauth.DeriveGroupKeys(group, identity)
	if err != nil {
		return err
	}
	defer clear(raw)
	k := &entityauth.PSKFile{Identity: identity, Encryption: raw[:16], MAC: raw[16:]}
	return writePSK(k, path)
}
