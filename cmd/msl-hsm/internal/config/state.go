package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/secret"
)

// State configures where a server keeps what it must not forget.
type State struct {
	File        stateFile     `yaml:"file" short:"yes" example:"server.db"`                                              // for one server; or
	Etcd        endpointList  `yaml:"etcd" example:"[https://etcd-1.example.com:2379, https://etcd-2.example.com:2379]"` // members of an etcd cluster, for several servers that serve the same devices
	Prefix      string        `yaml:"prefix" example:"msl-hsm"`                                                          // of all keys in etcd; a different one for each group of servers
	CA          string        `yaml:"ca" example:"etcd-ca.pem"`                                                          // root certificates for etcd's certificate; default: the system's roots
	Certificate string        `yaml:"certificate" example:"etcd-client.pem"`                                             // client certificate, if etcd requires one
	Key         string        `yaml:"key" example:"etcd-client.key"`                                                     // file of its private key
	User        string        `yaml:"user" example:"msl-hsm"`                                                            // etcd user; default: none
	Password    string        `yaml:"password" example:"file:etcd.password"`                                             // source of the user's password
	Staleness   time.Duration `yaml:"staleness" example:"5s"`                                                            // how long a server that has lost etcd continues with the revocations that it knows
}

// Override replaces the state with the file named by a flag, if the flag is not empty.
func (s *State) Override(flag string) {
	if flag != "" {
		*s = State{File: stateFile(flag)}
	}
}

// Path returns the path of the file.
func (s *State) Path() string { return string(s.File) }

// Shared reports whether the state is in a cluster.
func (s *State) Shared() bool { return len(s.Etcd) > 0 }

// IsZero reports whether there is no state.
func (s *State) IsZero() bool { return s.File == "" && !s.Shared() }

// String names the place.
func (s *State) String() string {
	if s.Shared() {
		return fmt.Sprintf("%s in etcd at %s", cmp.Or(s.Prefix, "msl-hsm"), strings.Join(s.Etcd, ", "))
	}
	return s.Path()
}

func (s *State) settle(dir string) {
	s.File = stateFile(within(dir, s.Path()))
	s.CA, s.Certificate, s.Key = within(dir, s.CA), within(dir, s.Certificate), within(dir, s.Key)
	s.Password = Settled(dir, s.Password)
}

// check refuses settings that contradict each other.
func (s *State) check() error {
	https := s.Shared() && strings.HasPrefix(s.Etcd[0], "https:")
	switch {
	case s.File != "" && s.Shared():
		return exit.Usagef("server.state has both file and etcd: one server keeps its state in a file, several in etcd")
	case !s.Shared() && s.Prefix+s.CA+s.Certificate+s.Key+s.User+s.Password != "" || !s.Shared() && s.Staleness != 0:
		return exit.Usagef("server.state has settings of etcd, but no etcd: name its members, such as etcd: [https://127.0.0.1:2379]")
	case s.Staleness != 0 && s.Staleness < time.Second:
		return exit.Usagef("server.state.staleness is %v: want 1s or more, since a server asks etcd once a second whether it is up to date", s.Staleness)
	case (s.Certificate == "") != (s.Key == ""):
		return exit.Usagef("server.state needs both for a client certificate: certificate and key")
	case (s.User == "") != (s.Password == ""):
		return exit.Usagef("server.state needs both for a user of etcd: user and password, the source of the password")
	case !https && s.CA+s.Certificate != "":
		return exit.Usagef("server.state has certificates, but server.state.etcd is not https")
	}
	if s.User != "" && slices.ContainsFunc(s.Etcd, inTheClear) {
		return exit.Usagef("server.state.etcd is http, and the password would go there in the clear: use https")
	}
	if s.Password != "" {
		if _, err := secret.Parse(s.Password); err != nil {
			return exit.Usagef("server.state.password is not a password, but its source: %w", err)
		}
	}
	return nil
}

// inTheClear reports whether traffic to a member crosses a network unprotected.
func inTheClear(member string) bool {
	u, err := url.Parse(member)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.IsLoopback()
}

// A stateFile is the path of a file.
type stateFile string

// UnmarshalYAML refuses the address of a cluster.
func (f *stateFile) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return misplaced{n, errors.New("must be a file, or have fields, such as {etcd: [https://127.0.0.1:2379]}")}
	}
	for _, scheme := range []string{"etcd:", "http:", "https:"} {
		if strings.HasPrefix(n.Value, scheme) {
			return misplaced{n, fmt.Errorf("%q is not a file: for a state in etcd write {etcd: [https://HOST:2379]}", n.Value)}
		}
	}
	*f = stateFile(n.Value)
	return nil
}

// An endpointList is a list of the members of a cluster.
type endpointList []string

// UnmarshalYAML reads a URL, or a list of them.
func (l *endpointList) UnmarshalYAML(n *yaml.Node) error {
	for _, item := range oneOrMore(n) {
		if err := checkEndpoint(item.Value); err != nil {
			return misplaced{item, err}
		}
		if len(*l) > 0 && strings.HasPrefix((*l)[0], "https:") != strings.HasPrefix(item.Value, "https:") {
			return misplaced{item, errors.New("some members are http and some https: use one of them for all")}
		}
		*l = append(*l, item.Value)
	}
	return nil
}

func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("want the URL of a member, such as https://127.0.0.1:2379")
	case u.Port() == "":
		return fmt.Errorf("%q has no port: want the URL of a member, such as https://127.0.0.1:2379", u.Redacted())
	case u.User != nil:
		return errors.New("a URL must not contain a name and password: set user and password")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q has more than a host and a port: set prefix for another place in etcd", u.Redacted())
	}
	return nil
}
