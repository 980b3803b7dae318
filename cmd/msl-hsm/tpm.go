package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/identity"
)

const makeIdentity = "run msl-hsm tpm init, and msl-hsm tpm enroll"

// A machine is the TPM of a device, with its keys and its identity.
type machine struct {
	device   *tpm.Device
	store    *tpm.Store
	identity *identity.Device
}

// identityFile is beside the file of the keys.
func identityFile(state string) string { return state + ".identity" }

// settledTPM makes the path of the state file in a tpm: URI absolute.
func settledTPM(dir, uri string) string {
	parts := strings.FieldsFunc(uri, func(r rune) bool { return r == '?' || r == '&' })
	for _, part := range parts {
		path, ok := strings.CutPrefix(part, "state=")
		if ok && path != "" && path[0] != '/' && !strings.HasPrefix(path, "%2") {
			return strings.Replace(uri, part, "state="+escapedPath(dir)+"/"+path, 1)
		}
	}
	return uri
}

// escapedPath writes a path as a tpm: URI has it.
func escapedPath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c == '/' || c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// tpmURI checks that the key store is a TPM, with a file for its keys.
func (c *config) tpmURI() (*tpm.URI, error) {
	if !strings.HasPrefix(c.Keystore.URI, "tpm:") {
		return nil, usagef("the key store is not a TPM: give --keystore tpm:?state=FILE")
	}
	u, err := tpm.ParseURI(c.Keystore.URI)
	if err != nil {
		return nil, usagef("key store: %w", err)
	}
	if u.State == "" {
		return nil, usagef("key store %s names no file for its keys: add state=FILE", c.Keystore.URI)
	}
	return u, nil
}

// openTPM opens the keys in a TPM.
func (c *config) openTPM(open func(tpm.Config) (*tpm.Store, error)) (keys, error) {
	if _, err := c.tpmURI(); err != nil {
		return nil, err
	}
	pin, err := c.tpmPIN()
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	s, err := open(tpm.Config{URI: c.Keystore.URI, PIN: pin.Bytes()})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// makeTPM opens the keys in a TPM, and makes the file of them if there is none.
func (c *config) makeTPM() (keys, error) {
	u, err := c.tpmURI()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(u.State); errors.Is(err, fs.ErrNotExist) {
		return c.openTPM(tpm.Init)
	}
	return c.openTPM(tpm.OpenStore)
}

// openMachine opens the TPM. With create it makes the key store that is missing.
func (c *config) openMachine(create bool) (*machine, error) {
	u, err := c.tpmURI()
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(u.State)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh && !create {
		return nil, missing(fmt.Errorf("no keys in the TPM yet, %s is not there: %w", u.State, keystore.ErrNotFound), makeIdentity)
	}
	pin, err := c.tpmPIN()
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	m := &machine{}
	if m.device, err = tpm.Open(c.Keystore.URI); err != nil {
		return nil, err
	}
	settings := tpm.StoreConfig{State: u.State, SRK: u.SRK, PIN: pin.Bytes()}
	open := m.device.OpenStore
	if fresh && create {
		open = m.device.InitStore
	}
	if m.store, err = open(settings); err == nil {
		m.identity, err = identity.Open(m.store, identityFile(u.State))
	}
	if errors.Is(err, keystore.ErrForeign) && !create {
		err = fmt.Errorf("%w; %s", err, makeIdentity)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// setKeysAside renames the file of keys that do not load, because of err, if they
// never will: the TPM was cleared, or another one replaces it on purpose.
func (p *program) setKeysAside(replace bool, err error) error {
	c, errC := p.configure()
	if errC != nil {
		return errC
	}
	u, errU := c.tpmURI()
	if errU != nil {
		return errU
	}
	device, errD := tpm.Open(c.Keystore.URI)
	if errD != nil {
		return errD
	}
	defer device.Close()
	switch why := identity.Diagnose(device, identityFile(u.State)); {
	case errors.Is(why, identity.ErrCleared), replace && isAny(why, identity.ErrOtherTPM, identity.ErrNotInitialized):
		return os.Rename(u.State, u.State+".lost")
	case isAny(why, identity.ErrOtherTPM, identity.ErrDamaged):
		return why
	}
	return fmt.Errorf("%w; to give these keys up add --replace", err)
}

// tpmPIN is the PIN of the TPM's keys, if they have one.
func (c *config) tpmPIN() (*lockedmem.Buffer, error) {
	if c.Keystore.PIN == "" {
		return nil, nil
	}
	return secret(c.Keystore.PIN, "PIN of the TPM's keys")
}

// Close closes the keys before the TPM.
func (m *machine) Close() error {
	var err error
	if m.store != nil {
		err = m.store.Close()
	}
	return errors.Join(err, m.device.Close())
}

// withMachine runs a verb on this machine's TPM.
func (p *program) withMachine(create bool, do func(*config, *machine) error) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	m, err := c.openMachine(create)
	if err != nil {
		return err
	}
	defer closing(&err, m)
	return do(c, m)
}

// progress tells a person what takes its time.
func (p *program) progress(what string) {
	if onTerminal(p.stderr) {
		fmt.Fprintln(p.stderr, "…", what)
	}
}

func (p *program) tpmInit() *cobra.Command {
	var ek string
	var algorithms []string
	var o identity.InitOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this machine's keys in its TPM",
		Long: `Makes the storage key, the attestation key and the identity keys of this machine in
its TPM, which --keystore tpm:?state=FILE names. Nothing that it writes to the disk
is secret. It can be repeated: what is there stays. After the TPM was cleared it makes
new ones, and the file of those that are lost ends in .lost.`,
		Args: want(),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if ek != "" {
				if o.EK, err = ekKind("--ek", ek); err != nil {
					return err
				}
			}
			for _, name := range algorithms {
				a, err := keystore.ParseAlgorithm(name)
				if err != nil {
					return usagef("--algorithm: %w", err)
				}
				o.Algorithms = append(o.Algorithms, a)
			}
			err = p.initTPM(c.Context(), o)
			if errors.Is(err, keystore.ErrForeign) {
				if err = p.setKeysAside(o.Replace, err); err == nil {
					err = p.initTPM(c.Context(), o)
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&ek, "ek", "", "`KIND` of endorsement key: rsa2048, p256 or p384 (default the first with a certificate)")
	c.Flags().StringSliceVar(&algorithms, "algorithm", nil, "`ALGORITHM` of an identity key: ecdsa-p256 or rsa2048-sign")
	c.Flags().BoolVar(&o.NewKeys, "new-keys", false, "make new identity keys, because the old ones were revoked")
	c.Flags().BoolVar(&o.Replace, "replace", false, "give up the identity that this machine had with another TPM")
	return c
}

func (p *program) initTPM(ctx context.Context, o identity.InitOptions) error {
	return p.withMachine(true, func(_ *config, m *machine) error {
		if err := m.identity.Init(ctx, o, p.progress); err != nil {
			return err
		}
		s, err := m.identity.Status()
		if err == nil {
			fmt.Fprintf(p.stdout, "this machine is EK hash %s\n", s.ID)
		}
		return err
	})
}

func (p *program) tpmStatus() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell what identity this machine has",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			return p.withMachine(false, func(_ *config, m *machine) error {
				s, err := m.identity.Status()
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(p.stdout, s)
				} else {
					err = p.printStatus(s)
				}
				if s.Initialized {
					err = errors.Join(err, m.identity.Check())
				}
				return err
			})
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func (p *program) printStatus(s identity.Status) error {
	if !s.Initialized {
		_, err := fmt.Fprintln(p.stdout, "no identity yet: run msl-hsm tpm init")
		return err
	}
	fmt.Fprintf(p.stdout, "EK hash   %s (%s)\nAK        %s\nenrolled  %s\n", s.ID, s.EK, s.AK, yesNo(s.Enrolled))
	if s.Enrolled {
		fmt.Fprintf(p.stdout, "name      %s\n", printable(s.Name))
	}
	if s.LastAnswer != "" {
		fmt.Fprintf(p.stdout, "last      %s: %s\n", day(*s.LastAttempt), printable(s.LastAnswer))
	}
	for _, k := range s.Keys {
		line := fmt.Sprintf("key       %s %s", k.Algorithm, k.Name)
		if k.NotAfter != nil {
			line += ", certificate " + k.Serial + " until " + day(*k.NotAfter)
		}
		fmt.Fprintln(p.stdout, line)
	}
	return nil
}

// tpmApply is enroll or renew: a conversation with the server's authority.
func (p *program) tpmApply(use, short, long, done string, apply func(*identity.Device, context.Context, identity.Exchange, func(string)) error) *cobra.Command {
	var over clientConfig
	c := &cobra.Command{
		Use:   use + " --server URL",
		Short: short,
		Long:  long,
		Args:  want(),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.withMachine(false, func(cfg *config, m *machine) error {
				cfg.Client.override(over)
				override(&cfg.Client.URL, over.URL)
				client, err := cfg.newcomerClient()
				if err != nil {
					return err
				}
				defer client.Close()
				err = apply(m.identity, c.Context(), exchangeWith(client, cfg.Client.Recipient), p.progress)
				s, statusErr := m.identity.Status()
				switch {
				case errors.Is(err, identity.ErrPending):
					return fmt.Errorf("%w; there it is msl-hsm enrollment approve %s", err, s.ID[:16])
				case err != nil:
					return err
				case statusErr == nil:
					fmt.Fprintf(p.stdout, "%s as %s\n", done, printable(s.Name))
				}
				return statusErr
			})
		},
	}
	c.Flags().StringVar(&over.URL, "server", "", "`URL` of the server's enrollment")
	c.Flags().StringVar(&over.ServerKey, "server-key", "", "public key of the server, in this PEM `FILE`")
	c.Flags().StringVar(&over.Recipient, "recipient", "", "identity `NAME` of the server")
	return c
}

func (p *program) tpmEnroll() *cobra.Command {
	return p.tpmApply("enroll", "Prove this machine to a server, and get an identity",
		`Proves to the server that the keys of this machine are in its TPM, and keeps the
identity that the server gives. It can be repeated at any time, after a crash too;
where a person has to approve the machine, repeat it when that was done.`,
		"enrolled", (*identity.Device).Enroll)
}

func (p *program) tpmRenew() *cobra.Command {
	return p.tpmApply("renew", "Get a new identity key, for which the old one vouches",
		`Makes new identity keys and enrolls them; the present ones vouch for them, and are in
use until the server has said yes.`,
		"renewed", (*identity.Device).Renew)
}

func (p *program) tpmQuote() *cobra.Command {
	var nonce string
	var pcrs []uint
	c := &cobra.Command{
		Use:   "quote --nonce HEX",
		Short: "Let the TPM sign the state of this machine, as JSON",
		Args:  want(),
		RunE: func(*cobra.Command, []string) error {
			n, err := parseHex("--nonce", nonce)
			if err != nil {
				return err
			}
			return p.withMachine(false, func(_ *config, m *machine) error {
				quote, err := m.identity.Quote(n, pcrs)
				if err == nil {
					_, err = fmt.Fprintf(p.stdout, "%s\n", quote)
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&nonce, "nonce", "", "16 to 32 bytes from whoever asks, as hexadecimal `DIGITS`")
	c.Flags().UintSliceVar(&pcrs, "pcr", []uint{0, 1, 2, 3, 4, 5, 6, 7}, "`NUMBERS` of PCRs, of the SHA-256 bank")
	return c
}

func parseHex(flag, text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, usagef("%s: want hexadecimal digits: %w", flag, err)
	}
	return b, nil
}

// newcomerClient talks to the server's enrollment as one without an identity, with
// session keys that end with the process: what has to be secret is for the TPM.
func (c *config) newcomerClient() (*msl.Client, error) {
	if err := c.Client.checkURL(); err != nil {
		return nil, err
	}
	if err := c.Client.checkPeers(); err != nil {
		return nil, err
	}
	peers, err := c.Client.peers(&client{})
	if err != nil {
		return nil, err
	}
	web, err := c.web(nil)
	if err != nil {
		return nil, err
	}
	return &msl.Client{
		Local: &entityauth.ProvisionedEntity{}, Peers: peers,
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: soft.New()}},
		Transport:    &mslhttp.Transport{URL: c.Client.URL, Client: web},
	}, nil
}

func exchangeWith(client *msl.Client, recipient string) identity.Exchange {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		r, err := client.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, Recipient: recipient, Body: msl.BytesBody(request)})
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(io.LimitReader(r.Body, identity.MaxMessage+1))
		return answer, errors.Join(err, r.Body.Close())
	}
}
