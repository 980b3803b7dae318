package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/msl-hsm/msl-hsm/msl"
)

type sendFlags struct {
	data, file                         string
	noEncryption, plain, nonReplayable bool
	verbose                            bool
}

func (p *program) send() *cobra.Command {
	var f sendFlags
	var over clientConfig
	c := &cobra.Command{
		Use:   "send [URL] [-]",
		Short: "Send a message to an MSL server, and print the answer",
		Long: `Sends a message and prints the data of the answer. The data of the message
comes from --data, from --file, or with - from the standard input; without any of
them the message has none.

Who sends: --psk-file has the pre-shared keys of the entity, --key names its RSA key
in the key store, --certificate its certificate for that key; without them the
entity claims its --identity and proves nothing.

With a state file, the next call goes on with the master token of this one.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			set := c.Flags().Changed
			if set("data") && set("file") {
				return usagef("send takes either --data or --file")
			}
			return p.runSend(c.Context(), args, over, f, set("data"))
		},
	}
	c.Flags().StringVar(&f.data, "data", "", "`TEXT` to send")
	c.Flags().StringVar(&f.file, "file", "", "`FILE` to send")
	c.Flags().BoolVar(&f.noEncryption, "no-encryption", false, "send the data unencrypted where that saves a key exchange")
	c.Flags().BoolVar(&f.plain, "no-integrity", false, "send the data unauthenticated where that saves a key exchange")
	c.Flags().BoolVar(&f.nonReplayable, "non-replayable", false, "let the server refuse a copy of the message")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "tell on stderr what was exchanged")
	over.flags(c)
	return c
}

// flags are those that override the client's configuration.
func (o *clientConfig) flags(c *cobra.Command) {
	s := c.Flags().StringVar
	s(&o.Identity, "identity", "", "our identity `NAME` (default that of the PSK file)")
	s(&o.PSK, "psk-file", "", "our pre-shared keys, in this `FILE`")
	s(&o.Key, "key", "", "label `NAME` of our RSA key in the key store")
	s(&o.KeyID, "key-id", "", "`ID` of our RSA key (default made of the key)")
	s(&o.Certificate, "certificate", "", "our certificate, in this PEM `FILE`")
	s(&o.Recipient, "recipient", "", "identity `NAME` of the server")
	s(&o.ServerKey, "server-key", "", "RSA public key of the server, in this PEM `FILE`")
	s(&o.ServerKeyID, "server-key-id", "", "`ID` of the server's key (default made of the key)")
	s(&o.State, "state", "", "`FILE` that keeps our tokens")
	s(&o.User, "user", "", "send for the user with this `EMAIL` address")
	s(&o.Password, "password-source", "", "`SOURCE` of the user's password")
}

func (c *clientConfig) override(o clientConfig) {
	override(&c.Identity, o.Identity)
	override(&c.PSK, o.PSK)
	override(&c.Key, o.Key)
	override(&c.KeyID, o.KeyID)
	override(&c.Certificate, o.Certificate)
	override(&c.Recipient, o.Recipient)
	override(&c.ServerKey, o.ServerKey)
	override(&c.ServerKeyID, o.ServerKeyID)
	override(&c.State, o.State)
	override(&c.User, o.User)
	override(&c.Password, o.Password)
}

func (p *program) runSend(ctx context.Context, args []string, over clientConfig, f sendFlags, hasData bool) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if err := notFromEnvironment("--password-source", over.Password); err != nil {
		return err
	}
	c.Client.override(over)
	fromStdin := len(args) > 0 && args[len(args)-1] == "-"
	if fromStdin {
		args = args[:len(args)-1]
	}
	if len(args) > 1 || fromStdin && (hasData || f.file != "") {
		return usagef("send takes one URL and one source of data")
	}
	if len(args) == 1 {
		c.Client.URL = args[0]
	}
	body, closeBody, err := p.body(f, hasData, fromStdin)
	if err != nil {
		return err
	}
	defer closeBody()
	tell := &story{verbose: f.verbose, out: p.stderr}
	client, err := c.openClient(tell)
	if err != nil {
		return err
	}
	defer closing(&err, client)
	return p.exchange(ctx, c, client, &msl.Request{
		Encrypted: !f.noEncryption, Authenticated: !f.plain, NonReplayable: f.nonReplayable,
		RequestTokens: true, User: c.Client.User, Recipient: c.Client.Recipient, Body: body,
	}, tell)
}

// body is the data to be sent.
func (p *program) body(f sendFlags, hasData, fromStdin bool) (func() (io.ReadCloser, error), func(), error) {
	none := func() {}
	switch {
	case hasData:
		return msl.BytesBody([]byte(f.data)), none, nil
	case fromStdin:
		return msl.ReaderBody(p.stdin, 0), none, nil
	case f.file != "":
		if _, err := os.Stat(f.file); err != nil {
			return nil, none, usagef("data to send: %w", err)
		}
		return func() (io.ReadCloser, error) { return os.Open(f.file) }, none, nil
	}
	return msl.BytesBody(nil), none, nil
}

// exchange sends the request and prints the answer.
func (p *program) exchange(ctx context.Context, c *config, client *client, request *msl.Request, tell *story) error {
	tell.begin()
	response, err := client.msl.Do(ctx, request)
	if err != nil {
		return explain(err, c)
	}
	out := &answerWriter{w: p.stdout}
	_, err = io.Copy(out, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if f, ok := p.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) && out.last != '\n' {
		fmt.Fprintln(p.stdout) // for the prompt that comes next
	}
	tell.end(response)
	return nil
}

// An answerWriter remembers the last byte of the answer.
type answerWriter struct {
	w    io.Writer
	last byte
}

func (a *answerWriter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		a.last = p[len(p)-1]
	}
	return a.w.Write(p)
}
