package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/msl"
)

type sendFlags struct {
	data, file                         string
	noEncryption, plain, nonReplayable bool
	noCompression                      bool
	noAnswer, raw, verbose, trace      bool
	peer, wait                         bool
	count                              int
	timeout, waitTime                  time.Duration
}

func sendCommand(p *program) *cobra.Command {
	var f sendFlags
	var over config.Client
	c := &cobra.Command{
		Use:   "send [URL] [--data TEXT | --file FILE | -]",
		Short: "Send a message to an MSL server, and print the answer",
		Long: `Sends a message and prints the data of the answer. The data of the message
comes from --data, from --file, or with - from the standard input; without any of them the
message has none. URL may be left out if the configuration has client.url.

On a terminal, control characters in the answer are escaped, since they could steer
the terminal; a file or a pipe gets the answer as it is.

Unless --entity-scheme is given, the scheme is inferred from these flags:

  --psk-file, --psk-keys   PSK, or with --profile PSK_PROFILE
  --certificate, --key     X509
  --key                    RSA or ECC, depending on the key
  --identity               NONE, or with --suffix NONE_SUFFIXED: proves nothing

MGK takes its keys as PSK does. PROVISIONED has no identity and is given one.
MT_PROTECTED hides any of the others under the master token of --earlier-state.

With a state file, the next call continues with the master token of this one.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			set := c.Flags().Changed
			if set("data") && set("file") {
				return exit.Usagef("send takes either --data or --file")
			}
			if f.count != 0 && !f.wait || f.count < 0 || f.wait && f.noAnswer {
				return exit.Usagef("--count goes with --wait, and --wait with an answer")
			}
			f.waitTime = 0
			if set("timeout") {
				f.waitTime = f.timeout
			}
			return reporting(p, over, f.verbose, func() error { return runSend(p, c.Context(), args, over, f, set("data")) })
		},
	}
	message := flagGroup{title: "The message"}
	s, b := message.set().StringVar, message.set().BoolVar
	s(&f.data, "data", "", "`TEXT` to send")
	s(&f.file, "file", "", "`FILE` to send")
	b(&f.noEncryption, "no-encryption", false, "send the data unencrypted where that saves a key exchange")
	b(&f.plain, "no-integrity", false, "send the data unauthenticated where that saves a key exchange")
	b(&f.noCompression, "no-compression", false, "send the data uncompressed, and ask for the same in the answer: for a secret next to text that others can choose")
	b(&f.nonReplayable, "non-replayable", false, "let the server refuse a copy of the message")
	b(&f.noAnswer, "no-answer", false, "expect no answer: a refusal is not seen")
	b(&f.peer, "peer", false, "the server is a peer, which gets tokens of this client, too")
	b(&f.wait, "wait", false, "after the answer, print messages that the server sends on its own")
	message.set().IntVar(&f.count, "count", 0, "with --wait, end after this `NUMBER` of messages")
	b(&f.raw, "raw", false, "write the answer to a terminal without escaping control characters")
	message.set().DurationVar(&f.timeout, "timeout", time.Minute, "`TIME` for the exchange, from the first byte sent to the last of the answer, and the same again for opening and closing the key store; 0 means no limit")
	message.set().BoolVarP(&f.verbose, "verbose", "v", false, "print what was exchanged to stderr")
	b(&f.trace, "trace", false, "print the header of each message to stderr, without secrets")
	grouped(c, append([]flagGroup{message}, clientFlags(&over)...)...)
	return c
}

func runSend(p *program, ctx context.Context, args []string, over config.Client, f sendFlags, hasData bool) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if err := notFromEnvironment("--password-source", over.Password); err != nil {
		return err
	}
	if f.timeout < 0 {
		return exit.Usagef("--timeout %v: want a time like 30s, or 0 for no limit", f.timeout)
	}
	overrideClient(&c.Client, over)
	fromStdin, err := f.destination(c, args, hasData)
	if err != nil {
		return err
	}
	body, closeBody, err := requestBody(p, f, hasData, fromStdin)
	if err != nil {
		return err
	}
	defer closeBody()
	tell := &clientside.Trace{Verbose: f.verbose, Headers: f.trace, Out: p.stderr}
	var client *clientside.Client
	opened := func() (err error) { client, err = clientside.Open(c, ctx, tell); return err }
	if err := f.ownTime(c, "the key store did not open", opened); err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, watchdog.ErrHung) { // a hung call blocks closing
			err = errors.Join(err, f.ownTime(c, "the key store did not close", client.Close))
		}
	}()
	request := &msl.Request{
		Encrypted: !f.noEncryption, Authenticated: !f.plain, NonReplayable: f.nonReplayable, Uncompressed: f.noCompression,
		RequestTokens: true, User: c.Client.User, Recipient: c.Client.Recipient, Body: body,
	}
	err = f.inTime(ctx, func(ctx context.Context) error {
		if f.noAnswer {
			tell.Begin()
			if err := watchdog.Run(watched(c, ctx), func() error { return client.Send(ctx, request) }); err != nil {
				return clientside.Explain(err, c)
			}
			tell.Remind()
			return nil
		}
		return exchangeOnce(p, ctx, c, client, request, tell, writeAnswers(p, f.raw), f.wait)
	})
	if err != nil || !f.wait {
		return err
	}
	ctx, stop := p.untilTold(ctx)
	defer stop()
	return waitForMessages(ctx, c, client, writeAnswers(p, f.raw), f.count, f.waitTime)
}

// destination reads the URL from the arguments, and determines whether the data comes
// from standard input.
func (f sendFlags) destination(c *config.Config, args []string, hasData bool) (fromStdin bool, err error) {
	fromStdin = len(args) > 0 && args[len(args)-1] == "-"
	if fromStdin {
		args = args[:len(args)-1]
	}
	if len(args) > 1 || fromStdin && (hasData || f.file != "") {
		return false, exit.Usagef("send takes one URL and one source of data: --data, --file, or - for the standard input; see msl-hsm send --help")
	}
	return fromStdin, f.useURL(c, args)
}

// useURL sets the URL of the server, if given, and checks it.
func (f sendFlags) useURL(c *config.Config, args []string) error {
	if len(args) == 1 {
		c.Client.URL = args[0]
	}
	c.Client.Peer = c.Client.Peer || f.peer
	return c.Client.CheckAnyURL(f.lastingFor())
}

// lastingFor is what requires a persistent connection, or "".
func (f sendFlags) lastingFor() string {
	switch {
	case f.wait:
		return "--wait"
	case f.peer:
		return "--peer"
	}
	return ""
}

// prompts reports whether a prompt may have to wait for the user, without a time limit.
func prompts(c *config.Config) bool {
	password := c.Client.User != "" && c.Client.UserScheme == "EMAIL_PASSWORD" && keys.OrPrompt(c.Client.Password) == "prompt"
	return password || c.Keystore.PIN == "prompt" || c.Keystore.Owner == "prompt"
}

// watched returns the context that ends hanging calls.
func watched(c *config.Config, ctx context.Context) context.Context {
	if prompts(c) {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// ownTime gives a step other than the exchange the same time limit.
func (f sendFlags) ownTime(c *config.Config, late string, do func() error) error {
	if f.timeout <= 0 || prompts(c) {
		return do()
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
	defer cancel()
	err := watchdog.Run(ctx, do)
	if err == watchdog.ErrHung {
		return fmt.Errorf("%s within %v: %w", late, f.timeout, err)
	}
	return err
}

// inTime limits the duration of the exchange. A silent peer counts as no answer.
func (f sendFlags) inTime(ctx context.Context, do func(context.Context) error) error {
	if f.timeout <= 0 {
		return do(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	err := do(ctx)
	switch {
	case err == nil, ctx.Err() != context.DeadlineExceeded:
		return err
	case errors.Is(err, watchdog.ErrHung):
		return fmt.Errorf("the message did not get through within %v: %w", f.timeout, err)
	}
	return exit.WithCode(fmt.Errorf("the answer did not come within %v: see whether the server is well, or give it more time with --timeout (%w)", f.timeout, err), exit.NoAnswer)
}

func requestBody(p *program, f sendFlags, hasData, fromStdin bool) (func() (io.ReadCloser, error), func(), error) {
	none := func() {}
	switch {
	case hasData:
		return msl.BytesBody([]byte(f.data)), none, nil
	case fromStdin:
		return msl.ReaderBody(p.stdin, 0), none, nil
	case f.file != "":
		info, err := os.Stat(f.file)
		if err != nil {
			return nil, none, exit.Usagef("data to send: %w; name another file with --file", err)
		}
		if info.IsDir() {
			return nil, none, exit.Usagef("data to send: %s is a directory; name a file with --file", f.file)
		}
		return func() (io.ReadCloser, error) { return plainfile.Stream(f.file) }, none, nil
	}
	return msl.BytesBody(nil), none, nil
}

// exchangeOnce sends the request and prints the answer.
func exchangeOnce(p *program, ctx context.Context, c *config.Config, client *clientside.Client, request *msl.Request, tell *clientside.Trace, to io.Writer, more bool) error {
	tell.Begin()
	response, err := watchdog.Do(ctx, watched(c, ctx), client, request)
	if err != nil {
		return clientside.Explain(err, c)
	}
	out := &answerWriter{w: to}
	_, err = io.Copy(out, response.Body)
	if err := closeRead(response.Body, err); err != nil {
		return fmt.Errorf("read the answer: %w", clientside.Unread(err))
	}
	if text, ok := to.(*safetext.Stream); ok {
		_ = text.Close() // if the terminal is gone, the rest is not needed
	}
	if (onTerminal(p.stdout) || more && out.last != 0) && out.last != '\n' {
		fmt.Fprintln(p.stdout) // for the following prompt or the next message
	}
	tell.End(response)
	return nil
}
