package clientside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A Session is what a state file keeps about one client: the times are those of its
// master token, and zero if it has none.
type Session struct {
	Client      string    `json:"client"`
	KeyExchange string    `json:"keyexchange,omitempty"`
	Renewable   time.Time `json:"renewable,omitzero"`
	Expires     time.Time `json:"expires,omitzero"`
	Users       []string  `json:"users,omitempty"`
	Services    int       `json:"servicetokens,omitempty"`
}

// Sessions are those in a state file. They require neither the keys nor the server.
type Sessions struct {
	path string
	file *bolt.Clients
	Only string // the client whose session to show or to end; empty means all
}

// OpenSessions opens the state file of a client, which must exist.
func OpenSessions(c *config.Config) (*Sessions, error) {
	path := c.Client.State
	if path == "" {
		return nil, exit.Usagef("no state file: give --state FILE, or client.state in the configuration")
	}
	file, err := bolt.OpenClients(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, exit.Usagef("no state file %s, so no session: correct the path", exit.Printable(path))
	case errors.Is(err, bolt.ErrEmpty):
		return nil, exit.Usagef("%s is empty, so it has no session: correct the path", exit.Printable(path))
	case errors.Is(err, bolt.ErrInUse):
		at := "ADDRESS, where it listens"
		config.Override(&at, exit.Printable(c.Client.Agent.Listen))
		return nil, fmt.Errorf("%w; if it is an agent, ask it with --agent %s", err, at)
	case err != nil:
		return nil, err
	}
	return &Sessions{path: path, file: file}, nil
}

// Close closes the file.
func (s *Sessions) Close() error { return s.file.Close() }

// List returns the sessions.
func (s *Sessions) List() (all []Session, err error) {
	err = s.each(func(name string, c *state.Client) error {
		r, err := c.Load(context.Background())
		if err != nil {
			return err
		}
		one := Session{Client: name, KeyExchange: r.KeyExchange, Users: slices.Sorted(maps.Keys(r.UserIDTokens)), Services: len(r.ServiceTokens)}
		if r.MasterToken != nil {
			t, err := msl.ParseMasterToken(r.MasterToken)
			if err != nil {
				return err
			}
			one.Renewable, one.Expires = t.RenewalWindow, t.Expiration
		}
		all = append(all, one)
		return nil
	})
	return all, err
}

func (s *Sessions) each(do func(name string, c *state.Client) error) error {
	names, err := s.file.Names()
	if err != nil {
		return err
	}
	if s.Only != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return !sameName(name, s.Only) })
		if len(names) == 0 {
			return exit.Usagef("%s has no client %s; msl-hsm session list lists them", exit.Printable(s.path), exit.Printable(s.Only))
		}
	}
	for _, name := range names {
		if err := do(name, s.file.Client(name)); err != nil {
			return err
		}
	}
	return nil
}

func sameName(a, b string) bool { return msl.CanonicalName(a) == msl.CanonicalName(b) }

// Logout logs out a user, and returns the clients at which the user was logged in.
func (s *Sessions) Logout(ctx context.Context, user string) (from []string, err error) {
	err = s.each(func(name string, c *state.Client) error {
		r, err := c.Load(ctx)
		if err != nil || !hasUser(r, user) {
			return err
		}
		from = append(from, name)
		return (&msl.Client{State: c}).Logout(ctx, user)
	})
	return from, err
}

func hasUser(r msl.ClientRecord, user string) bool {
	for name := range r.UserIDTokens {
		if sameName(name, user) {
			return true
		}
	}
	return false
}

// Forget drops all tokens, and returns the clients that had any.
func (s *Sessions) Forget(ctx context.Context) (of []string, err error) {
	err = s.each(func(name string, c *state.Client) error {
		r, err := c.Load(ctx)
		if err != nil || r.MasterToken == nil && len(r.ServiceTokens) == 0 {
			return err
		}
		of = append(of, name)
		return (&msl.Client{State: c}).Forget(ctx)
	})
	return of, err
}

// Purge closes the file, and rewrites it to purge the dropped data.
func (s *Sessions) Purge() error {
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := bolt.CompactClients(s.path); err != nil {
		return fmt.Errorf("the session has ended, but traces of its tokens may be left in the file: %w", err)
	}
	return nil
}

// longestSocket is how many bytes the path of a socket may have (unix(7)).
const longestSocket = 107

// hasPort reports whether an address ends with the number of a port.
func hasPort(at string) bool {
	_, port, err := net.SplitHostPort(at)
	_, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil
}

// AskAgent makes a running agent log out a user, or forget its session if no user is
// named.
func AskAgent(ctx context.Context, at, user string) error {
	transport := &http.Transport{DisableKeepAlives: true}
	url := "http://" + at + "/"
	if path, ok := config.CutUnix(at); ok {
		if len(path) > longestSocket {
			return exit.Usagef("--agent: the path of a socket must not exceed %d bytes, and this one has %d: correct it, or name it from another directory", longestSocket, len(path))
		}
		url = "http://agent/"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	} else if !hasPort(at) {
		return exit.Usagef("--agent %s: want unix:PATH, or a loopback address with a port", exit.Printable(at))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, url, nil)
	if err != nil {
		return exit.Usagef("--agent %s: want unix:PATH, or a loopback address with a port", exit.Printable(at))
	}
	r.Header.Set("Msl-Session", "forget")
	if user != "" {
		r.Header.Set("Msl-Session", "logout")
		r.Header.Set("Msl-User", mslhttp.EncodeName(user))
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return fmt.Errorf("no agent answers at %s: check that it runs, and its client.agent.listen: %w", exit.Printable(at), safetext.Brief(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNoContent {
		return nil
	}
	told, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	return fmt.Errorf("the agent at %s answered %s: %s", exit.Printable(at), answer.Status, exit.Printable(strings.TrimSpace(string(told))))
}
