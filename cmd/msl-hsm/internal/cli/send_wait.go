package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/clientside"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// waitForMessages prints messages that the server sends unasked, each on its own line,
// until there were count, the time is up, or a signal ends ctx; zero means no limit.
func waitForMessages(ctx context.Context, c *config.Config, client *clientside.Client, to io.Writer, count int, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	got := 0
	err := client.Pushed(ctx, c.Client.User, func(data io.Reader) (bool, error) {
		out := &answerWriter{w: to}
		_, err := io.Copy(out, data)
		if err == nil && out.last != '\n' {
			_, err = io.WriteString(to, "\n")
		}
		got++
		return got != count, err
	})
	switch {
	case err == nil || ctx.Err() != nil && count == 0:
		return nil
	case ctx.Err() == context.DeadlineExceeded:
		return exit.WithCode(fmt.Errorf("%d of %d messages came within %v", got, count, limit), exit.NoAnswer)
	case ctx.Err() != nil:
		return fmt.Errorf("a signal came after %d of %d messages", got, count)
	}
	return clientside.Explain(err, c)
}
