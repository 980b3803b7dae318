package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"os"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/msl"
)

// waitForMessages prints what the server sends by itself, each message on a line of
// its own, until there were enough, the time is up, or a signal comes.
func waitForMessages(p *program, ctx context.Context, c *config.Config, client *clientside.Client, f sendFlags) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if f.waitTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.waitTime)
		defer cancel()
	}
	got, to := 0, writeAnswers(p, f.raw)
	err := client.Pushed(ctx, c.Client.User, func(r *msl.Response) (bool, error) {
		out := &answerWriter{w: to}
		_, err := io.Copy(out, r.Body)
		if err = errors.Join(err, r.Body.Close()); err == nil && out.last != '\n' {
			_, err = io.WriteString(to, "\n")
		}
		got++
		return got != f.count, err
	})
	switch {
	case err == nil || ctx.Err() != nil && f.count == 0:
		return nil
	case ctx.Err() == context.DeadlineExceeded:
		return exit.WithCode(fmt.Errorf("%d of %d messages came within %v", got, f.count, f.waitTime), exit.NoAnswer)
	case ctx.Err() != nil:
		return fmt.Errorf("a signal came after %d of %d messages", got, f.count)
	}
	return clientside.Explain(err, c)
}
