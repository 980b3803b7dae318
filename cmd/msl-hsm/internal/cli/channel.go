package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/watchdog"
	"github.com/msl-hsm/msl-hsm/msl"
)

func channelCommand(p *program) *cobra.Command {
	var f sendFlags
	var over config.Client
	c := &cobra.Command{
		Use:   "channel [URL]",
		Short: "Open a channel to an MSL server: standard input and output, both ways",
		Long: `Sends standard input as one long request while it is read, and prints the answer while
it arrives. The request ends with the input, and the command with the answer. SIGINT and
SIGTERM cut the channel off.

At ws://, wss://, tcp:// and tls://, with or without --peer, servers answer while they
read, and a channel may be silent for as long as both ends live. At http:// and https://
a channel works if no proxy in between buffers. It lasts no longer than
server.limits.timeout or, with server.limits.idle, until it is silent for that long.

The flags for sender and trust are those of msl-hsm send.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			return reporting(p, over, f.verbose, func() error { return runChannel(p, c.Context(), args, over, f) })
		},
	}
	channel := flagGroup{title: "The channel"}
	channel.set().BoolVar(&f.peer, "peer", false, "the server is a peer, which gets tokens of this client, too")
	channel.set().BoolVar(&f.raw, "raw", false, "write the answer to a terminal without escaping control characters")
	channel.set().DurationVar(&f.timeout, "timeout", time.Minute, "`TIME` for opening and closing the key store; 0 means no limit")
	channel.set().BoolVarP(&f.verbose, "verbose", "v", false, "print what was exchanged to stderr")
	grouped(c, append([]flagGroup{channel}, clientFlags(&over)...)...)
	return c
}

func runChannel(p *program, ctx context.Context, args []string, over config.Client, f sendFlags) (err error) {
	c, err := p.configure()
	if err != nil {
		return err
	}
	if err := notFromEnvironment("--password-source", over.Password); err != nil {
		return err
	}
	overrideClient(&c.Client, over)
	if err := f.useURL(c, args); err != nil {
		return err
	}
	tell := &clientside.Trace{Verbose: f.verbose, Out: p.stderr}
	var client *clientside.Client
	opened := func() (err error) { client, err = clientside.Open(c, ctx, tell); return err }
	if err := f.ownTime(c, "the key store did not open", opened); err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, watchdog.ErrHung) {
			err = errors.Join(err, f.ownTime(c, "the key store did not close", client.Close))
		}
	}()
	ctx, stop := p.untilTold(ctx)
	defer stop()
	err = talk(p, ctx, c, client, tell, writeAnswers(p, f.raw))
	if err != nil && ctx.Err() != nil && !errors.Is(err, watchdog.ErrHung) {
		return exit.WithCode(errors.New("the channel was cut off by a signal"), exit.Failure)
	}
	return err
}

// talk sends the input as it arrives, and prints the answer. When the answer ends, the
// rest of the input is not wanted.
func talk(p *program, ctx context.Context, c *config.Config, client *clientside.Client, tell *clientside.Trace, to io.Writer) error {
	input, typed := io.Pipe()
	go func() {
		_, err := io.Copy(typed, p.stdin)
		typed.CloseWithError(err)
	}()
	defer input.Close()
	defer context.AfterFunc(ctx, func() { typed.CloseWithError(context.Canceled) })()
	request := &msl.Request{
		Encrypted: true, Authenticated: true, RequestTokens: true, Interactive: true,
		User: c.Client.User, Recipient: c.Client.Recipient, Body: msl.ReaderBody(input, 0),
	}
	tell.Begin()
	response, err := watchdog.Do(ctx, watched(c, ctx), client, request)
	if err != nil {
		return clientside.Explain(err, c)
	}
	_, err = io.Copy(to, response.Body)
	typed.Close() // ends the request, if it has not ended
	if err != nil {
		input.CloseWithError(err)
	}
	if err := closeRead(response.Body, err); err != nil {
		return fmt.Errorf("the channel broke off: %w", clientside.Unread(err))
	}
	tell.End(response)
	return nil
}
