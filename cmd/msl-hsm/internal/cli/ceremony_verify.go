package cli

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

func ceremonyVerifyCommand(p *program) *cobra.Command {
	var keyHash string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify TRANSCRIPT",
		Short: "Verify the transcript of a ceremony, without the token",
		Long: `Verifies the signature of a transcript by the key that it names, and prints what was done.
Anybody can make such a key, so give --key-hash, the hash that the witnesses noted.`,
		Args: want("TRANSCRIPT"),
		RunE: func(c *cobra.Command, args []string) error {
			noted, err := hex.DecodeString(keyHash)
			if c.Flags().Changed("key-hash") && (err != nil || len(noted) == 0) {
				return exit.Usagef("--key-hash %q: want the 64 hexadecimal digits that the witnesses noted", keyHash)
			}
			t, hash, err := verifyTranscript(args[0])
			if err != nil {
				return err
			}
			switch {
			case len(noted) == 0:
				fmt.Fprintln(p.stderr, "warning: anyone can make a key and sign with it: compare the hash of this key with the one that the witnesses noted, or pass that one as --key-hash")
			case hex.EncodeToString(noted) != hash:
				return fmt.Errorf("the transcript is signed by the key %s, and not by the one that the witnesses noted", hash)
			}
			if asJSON {
				return printJSON(p.stdout, verified{t, hash})
			}
			return showTranscript(p, t, hash)
		},
	}
	c.Flags().StringVar(&keyHash, "key-hash", "", "`HEX` digits of SHA-256 of the key that must have signed")
	jsonFlag(c, &asJSON)
	return c
}

// A verified transcript is one signed by the key with this hash.
type verified struct {
	*transcript
	SignedBy string `json:"signed_by"` // SHA-256 of the key, in hexadecimal
}

func showTranscript(p *program, t *transcript, hash string) error {
	if t.DryRun {
		fmt.Fprintln(p.stdout, "this was a rehearsal, on a token that was thrown away")
	}
	fmt.Fprintf(p.stdout, "%s\noperator:  %s\nwitnesses: %s\ntoken:     %s, serial %s, %s %s\ntime:      %s to %s\nsigned by: %s\n",
		exit.Printable(t.Title), exit.Printable(t.Operator), exit.Printable(strings.Join(t.Witnesses, ", ")), exit.Printable(t.Token.Label), exit.Printable(t.Token.Serial),
		exit.Printable(t.Token.Manufacturer), exit.Printable(t.Token.Model), t.Began.Format(time.RFC3339), t.Ended.Format(time.RFC3339), hash)
	return list(p.stdout, false, t.Keys, "LABEL\tVERSION\tALGORITHM\tALWAYS SENSITIVE\tNEVER EXTRACTABLE\tLOCAL\tCHECK VALUE", func(k ceremonyEntry) []any {
		return []any{exit.Printable(k.Label), k.Version, k.Algorithm, k.AlwaysSensitive, k.NeverExtractable, k.Local, k.CheckValue}
	})
}
