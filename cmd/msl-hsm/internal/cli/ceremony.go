//go:build cgo && !nopkcs11

package cli

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/throwaway"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

func ceremonyCommand(p *program) *cobra.Command {
	var f ceremonyFlags
	c := &cobra.Command{
		Use:   "ceremony FILE",
		Short: "Make keys in a token before witnesses, with a signed transcript",
		Long: `Makes the keys named in a file in a PKCS #11 token, and writes a transcript: who carried
out and watched the ceremony, the token and module, each key with its attributes as the
token reports them, its public key or check value, and times. A key made for it signs it.
docs/ceremony.md has an example.

--dry-run does all of it on a SoftHSM token that is thrown away. After an interruption,
continue the ceremony with --continue, or undo it with --clean-up. With --so-pin, sealing
keys are made as trusted wrapping keys, as by msl-hsm key create.`,
		Args: want("FILE"),
		// else its verbs would be completed, and no file
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(c *cobra.Command, args []string) error {
			if err := notTogether(c, "dry-run", "continue", "clean-up"); err != nil {
				return err
			}
			return holdCeremony(p, args[0], f)
		},
	}
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "rehearse on a SoftHSM token that is thrown away")
	c.Flags().BoolVar(&f.goOn, "continue", false, "continue a ceremony that was interrupted")
	c.Flags().BoolVar(&f.cleanUp, "clean-up", false, "destroy the keys of a ceremony that was interrupted")
	soPINFlag(c, &f.soPIN, ", for trusted sealing keys")
	c.AddCommand(ceremonyVerifyCommand(p))
	return c
}

func holdCeremony(p *program, path string, f ceremonyFlags) (err error) {
	plan, err := config.ReadCeremony(path)
	if err != nil {
		return err
	}
	c, err := p.configure()
	if err != nil {
		return err
	}
	if f.dryRun {
		end, err := dryRunToken(c, plan, &f)
		if err != nil {
			return err
		}
		defer end()
	} else {
		alone, err := holdPlan(path)
		if err != nil {
			return err
		}
		defer alone.Close()
		config.Override(&c.Keystore.URI, plan.Token)
	}
	x := &ceremony{Ceremony: plan, p: p, journal: plan.Transcript + ".unfinished"}
	if err := x.begin(path, f); err != nil {
		return err
	}
	if err := x.take(&c.Keystore); err != nil {
		return err
	}
	if x.store, err = openMaking(p, c, f.soPIN, keys.Make); err != nil {
		return err
	}
	defer exit.Closing(&err, x.store)
	if f.cleanUp {
		return x.undo()
	}
	if err := x.make(); err != nil {
		if len(x.state.Keys) == 0 {
			return err // nothing was done
		}
		return fmt.Errorf("%w; the ceremony is unfinished: resume it with --continue, or undo it with --clean-up", err)
	}
	return x.end()
}

// holdPlan excludes other ceremonies of the same file until the returned file is closed
// or the process ends.
func holdPlan(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = exit.Usagef("another msl-hsm ceremony of %s is under way: let it end", path)
	} else {
		err = fmt.Errorf("lock %s, to keep other ceremonies of it out: %w", path, err)
	}
	return nil, errors.Join(err, f.Close())
}

// dryRunToken makes the configuration and the flags refer to a token that is removed at
// the end.
func dryRunToken(c *config.Config, plan *config.Ceremony, f *ceremonyFlags) (end func(), err error) {
	dir, err := throwaway.Dir("", "msl-hsm-ceremony-")
	if err != nil {
		return nil, err
	}
	end = func() { throwaway.Remove(dir) }
	pin, soPIN := rand.Text(), rand.Text()
	token, err := softhsm.New(dir, "dry-run", []byte(pin), []byte(soPIN))
	if err == nil {
		err = atomicfile.Create(filepath.Join(dir, "pin"), []byte(pin), 0)
	}
	if err == nil && f.soPIN != "" {
		f.soPIN = "file:" + filepath.Join(dir, "so-pin")
		err = atomicfile.Create(filepath.Join(dir, "so-pin"), []byte(soPIN), 0)
	}
	if err != nil {
		end()
		return nil, err
	}
	c.Keystore = config.Keystore{URI: token.URI, PIN: "file:" + filepath.Join(dir, "pin"), Prefix: c.Keystore.Prefix, TrustedWrap: c.Keystore.TrustedWrap}
	plan.Transcript = filepath.Join(dir, "transcript")
	return end, nil
}

// begin begins a ceremony, or resumes an interrupted one.
func (x *ceremony) begin(path string, f ceremonyFlags) error {
	plan, err := plainfile.Read(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(plan)
	journal, err := plainfile.Read(x.journal)
	interrupted := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := x.unwritten(f, interrupted); err != nil {
		return err
	}
	switch {
	case !interrupted && (f.goOn || f.cleanUp):
		return exit.Usagef("no ceremony of %s was interrupted: there is no %s", path, x.journal)
	case !interrupted:
		host, _ := os.Hostname()
		x.state = transcript{Title: x.Title, DryRun: f.dryRun, Operator: x.Operator, Witnesses: x.Witnesses, Program: readBuild(), Host: host, Plan: hex.EncodeToString(sum[:]), Began: now()}
		return nil
	}
	return x.resume(path, hex.EncodeToString(sum[:]), journal, f)
}

// make makes the missing keys, the signing key first.
func (x *ceremony) make() error {
	plan := x.plan()
	if len(x.state.Keys) == 0 {
		if err := x.absent(plan); err != nil {
			return err
		}
	}
	for i, k := range plan {
		made := i < len(x.state.Keys) && !x.state.Keys[i].Made.IsZero()
		if made {
			if err := x.again(i); err != nil {
				return err
			}
			continue
		}
		if err := x.makeKey(i, k); err != nil {
			return err
		}
	}
	return nil
}

// absent checks that none of the keys exists before any is made.
func (x *ceremony) absent(plan []config.CeremonyKey) error {
	newest, err := keys.Newest(x.store)
	if err != nil {
		return err
	}
	for _, k := range plan {
		if _, there := newest[k.Label]; there {
			return exit.Usagef("the key %q is already in the token, and does not belong to this ceremony: choose another label, or destroy it", k.Label)
		}
	}
	return nil
}

// makeKey records that a key is about to be made, makes it, and records its description.
func (x *ceremony) makeKey(i int, k config.CeremonyKey) error {
	newest, err := keys.Newest(x.store)
	if err != nil {
		return err
	}
	_, there := newest[k.Label]
	if i == len(x.state.Keys) {
		if there {
			return fmt.Errorf("somebody else made the key %q meanwhile: find out who, and destroy it", k.Label)
		}
		x.state.Keys = append(x.state.Keys, ceremonyEntry{Info: keystore.Info{Label: k.Label, Algorithm: k.Algorithm}})
		if err := x.note(); err != nil {
			return err
		}
	}
	if !there {
		if _, err := x.store.Create(k.Label, k.Algorithm); err != nil {
			return err
		}
	}
	entry, err := x.describe(k.Label)
	if err != nil {
		return err
	}
	x.state.Keys[i] = entry
	fmt.Fprintf(x.p.stdout, "made %s version %d %v\n", k.Label, entry.Version, k.Algorithm)
	return x.note()
}

// note saves what was done, before and after each step.
func (x *ceremony) note() error {
	text, err := json.Marshal(x.state)
	if err != nil {
		return err
	}
	return atomicfile.Replace(x.journal, text, 0)
}

// end signs the transcript, and reads it back.
func (x *ceremony) end() error {
	x.state.Ended = now()
	signer, err := keystore.Find[crypto.Signer](x.store, x.Signer)
	if err != nil {
		return err
	}
	err = signTranscript(x.Transcript, &x.state, signer)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	t, hash, err := verifyTranscript(x.Transcript)
	if err == nil && (t.Plan != x.state.Plan || t.Keys[0].PublicKey != x.state.Keys[0].PublicKey) {
		err = fmt.Errorf("%s is the transcript of another ceremony: move it away, and run --continue again", x.Transcript)
	}
	if err == nil {
		err = os.Remove(x.journal)
	}
	if err != nil {
		return err
	}
	if t.DryRun {
		fmt.Fprintf(x.p.stdout, "rehearsed: %s, and the transcript verifies; the token is thrown away\n", exit.Count(len(t.Keys), "key", "keys"))
		return nil
	}
	fmt.Fprintf(x.p.stdout, "wrote %s, signed by the key %s\nwitnesses: note this hash of the key, for msl-hsm ceremony verify --key-hash\n", x.Transcript, hash)
	return nil
}
