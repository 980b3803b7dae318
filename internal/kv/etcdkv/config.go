package etcdkv

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Config says how to reach a store. Endpoints must be set.
type Config struct {
	// Endpoints are the URLs of the members of the cluster, such as
	// https://etcd-1.example.com:2379. All have the same scheme, http or https.
	Endpoints []string
	// Prefix precedes all keys of the store. Zero means "msl-hsm".
	Prefix string
	// TLS has the roots for https and, if etcd asks for it, a client certificate, whose
	// private key is any crypto.Signer. Nil means the system's roots.
	TLS *tls.Config
	// Roots returns the roots for https, instead of those of TLS. It is called for each
	// connection, so that they can be replaced. It may be nil.
	Roots func() (*x509.CertPool, error)
	// User is the name of a user of etcd. Zero means none.
	User string
	// Password returns the password of User. It is called by Open, and again when etcd no
	// longer accepts what it returned. The result is overwritten; the client of etcd keeps a
	// copy to log in again.
	Password func(context.Context) ([]byte, error)
	// DialTimeout is how long Open waits for the first answer. Zero means 5 seconds.
	DialTimeout time.Duration
	// Timeout is how long a request waits while the cluster is unavailable, for example
	// while it elects a leader. Each attempt takes at most a third of it. Zero means 6
	// seconds.
	Timeout time.Duration
}

// A Layout describes the purpose of a store and its contents.
type Layout struct {
	// Kind is in the store: a store of another kind is [kv.ErrFormat].
	Kind string
	// Tables lists the tables. [kv.Settings] need not be listed. Names begin with a letter
	// and do not contain "/".
	Tables []string
	// Apart lists the tables that a [Follower] does not copy.
	Apart []string
}

// Following says how a copy of a store is kept.
type Following struct {
	// Staleness limits how long the copy is used after it was last confirmed up to date:
	// after that, it is [kv.ErrStale]. Zero means 5 seconds.
	Staleness time.Duration
	// Notice is called with the reason when the copy can no longer be checked, and with
	// nil when it can again. It may be nil.
	Notice func(error)
	// Observer is informed of the contents of the copy. It may be nil.
	Observer Observer
}

// An Observer is called for each record of a copy as it changes, never while the copy is
// read. Reset means that the copy is made anew. A value is nil if there is no record, and
// must not be retained.
type Observer interface {
	Reset()
	Changed(table string, key, old, value []byte)
}

// An Opening says whether a store must, may or must not exist at a prefix.
type Opening int

// The values of Opening.
const (
	OpenOrCreate Opening = iota // the store may exist
	OpenExisting                // the store must exist, else [kv.ErrEmpty]
	CreateNew                   // the store must not exist, else [kv.ErrExists]
)

// ErrUncertain: a change may or may not have been made, since etcd did not answer.
var ErrUncertain = kv.ErrUncertain

// A failure is an error with its own text that is also another error, whose text refers
// to files.
type failure struct {
	text string
	is   error
}

func (f failure) Error() string { return "etcdkv: " + f.text }
func (f failure) Unwrap() error { return f.is }

func fail(is error, format string, args ...any) error {
	return failure{fmt.Sprintf(format, args...), is}
}

// withDefaults returns a copy with all necessary fields set.
func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "msl-hsm"
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 5 * time.Second
	}
	if c.Timeout == 0 {
		c.Timeout = 6 * time.Second
	}
	return c
}

// check finds what cannot work before anything is sent.
func (c Config) check() error {
	if len(c.Endpoints) == 0 {
		return errors.New("etcdkv: no endpoint: name at least one, such as https://127.0.0.1:2379")
	}
	scheme := ""
	for _, endpoint := range c.Endpoints {
		u, err := c.checkEndpoint(endpoint)
		if err != nil {
			return err
		}
		if scheme != "" && u.Scheme != scheme {
			return errors.New("etcdkv: some endpoints are http and some https: use one of them for all")
		}
		scheme = u.Scheme
	}
	if (c.User == "") != (c.Password == nil) {
		return errors.New("etcdkv: a user needs a password, and a password a user")
	}
	if c.DialTimeout < 0 || c.Timeout < 0 {
		return errors.New("etcdkv: a time-out is negative")
	}
	return nil
}

func (c Config) checkEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("etcdkv: an endpoint is not a URL such as https://127.0.0.1:2379")
	case u.User != nil:
		return nil, errors.New("etcdkv: an endpoint contains a user: configure user and password by themselves")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("etcdkv: the endpoint %s has a path: leave it out, and set the prefix instead", u.Redacted())
	case u.Scheme == "http" && (c.TLS != nil || c.Roots != nil):
		return nil, fmt.Errorf("etcdkv: TLS is configured, but the endpoint %s is http: use https", endpoint)
	case u.Scheme == "http" && c.User != "" && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("etcdkv: the password would go to %s in the clear: use https", endpoint)
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (l Layout) check() error {
	for _, table := range l.Tables {
		if table == "" || !unicode.IsLetter(rune(table[0])) || strings.Contains(table, "/") {
			return fmt.Errorf("etcdkv: %q cannot be the name of a table", table)
		}
	}
	return nil
}

func (l Layout) has(table string) bool {
	return table == kv.Settings || slices.Contains(l.Tables, table)
}

// place returns the part of a key for a table. Tables that are not copied sort after all
// others, so that the others form one range of keys.
func (l Layout) place(table string) string {
	if slices.Contains(l.Apart, table) {
		return apart + table
	}
	return table
}

// apart begins the place of a table that is not copied.
const apart = "~"
