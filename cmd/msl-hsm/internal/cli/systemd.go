package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/serverside"
)

// sockets are those that systemd opened for this process, keyed by the setting whose
// address they replace (sd_listen_fds(3)).
type sockets map[string]net.Listener

// activatedSockets takes the sockets of systemd, if any. Their FileDescriptorName is
// stream, peer or push; any other name means the server itself.
func activatedSockets(c *config.Server) (sockets, error) {
	own := os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid())
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); own && (err != nil || n > mostSockets) {
		return nil, exit.Usagef("LISTEN_FDS is %q: want at most %d sockets: correct the .socket unit", os.Getenv("LISTEN_FDS"), mostSockets)
	}
	all := sockets{}
	for _, f := range activation.Files(true) {
		setting := "server.listen"
		if name := f.Name(); name == "stream" || name == "peer" || name == "push" {
			setting = "server." + name
		}
		l, err := listenerIn(f)
		if _, taken := all[setting]; taken || err != nil {
			return nil, exit.Usagef("systemd passes a socket %q that does not listen, or a second one for %s: correct the .socket unit", f.Name(), setting)
		}
		all[setting] = l
	}
	return all, all.check(c)
}

// check refuses sockets that nothing would serve: whoever connects to one waits forever.
func (s sockets) check(c *config.Server) error {
	for setting, address := range map[string]string{"server.stream": c.Stream.Listen, "server.peer": c.Peer.Listen, "server.push": c.Push.Listen} {
		if _, passed := s[setting]; passed && address == "" {
			return exit.Usagef("systemd passes a socket for %s, and %s.listen is not set: set it, to any address, or correct the .socket unit", setting, setting)
		}
	}
	return nil
}

// mostSockets is how many there are names for.
const mostSockets = 4

// listenerIn takes a socket out of the file that has it.
func listenerIn(f *os.File) (net.Listener, error) {
	defer f.Close()
	listens, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listens == 0 {
		err = errors.New("it does not listen")
	}
	if err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

// listen listens at the address of a setting, unless systemd does so already.
func (s sockets) listen(setting, address string) (net.Listener, error) {
	if l, ok := s[setting]; ok {
		return l, nil
	}
	return net.Listen("tcp", address)
}

// notify informs systemd, if that started this process. If systemd does not listen, the
// server must still work.
func notify(state string) {
	told := make(chan struct{})
	go func() {
		defer close(told)
		_, _ = daemon.SdNotify(false, state)
	}()
	select {
	case <-told:
	case <-time.After(time.Second):
	}
}

// drained returns a context that ends some time after ctx. In between, the server reports
// that it is not ready, so that balancers send it nothing more.
func drained(ctx context.Context, while time.Duration, s *serverside.Service, log *slog.Logger) (context.Context, context.CancelFunc) {
	if ctx.Err() != nil {
		return ctx, func() {}
	}
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		s.Leave()
		if while > 0 {
			log.Info("no longer ready", "listening_for", while)
		}
		time.AfterFunc(while, cancel)
	})
	return late, func() { stop(); cancel() }
}

// hangups are the signals that request a reload. From now on none of them ends the
// process.
func hangups() chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals
}

// reloadOn reloads the configuration at each signal, and informs systemd. Call the
// returned function at the end.
func reloadOn(signals chan os.Signal, reload func()) (end func()) {
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
				notify(reloading())
				reload()
				notify(daemon.SdNotifyReady)
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended) }
}

// keepAlive informs systemd twice per interval that the server is alive, as long as its
// state answers: if that hangs, only a restart helps. A failing device does not matter
// here.
func keepAlive(s *serverside.Service) (end func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval <= 0 {
		return func() {}
	}
	ticker, ended := time.NewTicker(interval/2), make(chan struct{})
	go func() {
		for {
			if s.Alive(context.Background()) {
				notify(daemon.SdNotifyWatchdog)
			}
			select {
			case <-ticker.C:
			case <-ended:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(ended) }
}

// countRefusals has the starts of a unit counted at which the token does not accept the PIN. systemd
// does not start it again after such an end, but a connection to its socket does. A start that it
// ended in a pause, for taking too long, would not be counted.
func countRefusals(k *config.Keystore, ctx context.Context, what string) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); dir != "" {
		k.Refusals, k.Ends, k.Pauses = filepath.Join(dir, what+"-pin-refused"), ctx.Done(), prolong
	}
}

// prolong has systemd wait for a start for as long as it pauses, and a minute and a half more, as it
// waits for any start (sd_notify(3)).
func prolong(pause time.Duration) {
	notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (pause + 90*time.Second).Microseconds()))
}
