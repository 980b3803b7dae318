package serverside

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestPortTaken takes an address that is in use for that of the server, where the doctor cannot ask
// it: beside etcd, and as another user.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	beside := t.TempDir()
	write(t, beside, "file", "")
	var hidden config.State
	hidden.Override(filepath.Join(beside, "file", "server.db"))
	for _, c := range []struct {
		place   config.State
		verdict Verdict
	}{
		{config.State{Etcd: []string{"http://127.0.0.1:1"}}, Warning},
		{config.State{File: "server.db"}, Failure},
		{hidden, Warning}, // which cannot be looked up
	} {
		d := &doctor{c: &config.Config{Server: config.Server{Listen: l.Addr().String(), State: c.place}}}
		d.ports(false)
		if len(d.found) != 1 || d.found[0].Verdict != c.verdict {
			t.Errorf("%v, want %s: %+v", c.place, c.verdict, d.found)
		}
	}
}

// TestDoctorUnanswered asks a server that hangs up: once, and the doctor says so once.
func TestDoctorUnanswered(t *testing.T) {
	c := config.Default()
	c.Server.State.Override(filepath.Join(t.TempDir(), "s"))
	l, err := net.Listen("unix", c.Server.State.Path()+".sock")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	var told []Check
	for _, check := range Examine(t.Context(), c) {
		if strings.Contains(check.Detail, c.Server.State.Path()) && check.Name != "disk" {
			told = append(told, check)
		}
	}
	if len(told) != 1 || told[0].Name != "running server" || told[0].Verdict != Failure {
		t.Errorf("%+v", told)
	}
}

// A listing lists keys.
type listing struct {
	keystore.Admin
	all []keystore.Info
}

func (l listing) List() ([]keystore.Info, error) { return l.all, nil }

// TestWeakKeys advises to destroy a key that can be read, and not one of which the device does not
// tell whether it can.
func TestWeakKeys(t *testing.T) {
	for _, untold := range [][]string{nil, {"CKA_SENSITIVE"}} {
		d := &doctor{c: &config.Config{Keystore: config.Keystore{Prefix: "msl"}}}
		d.keys(listing{all: []keystore.Info{{Label: "msl-mac", Version: 2, Weaknesses: []string{"not-sensitive: …"}, Untold: untold}}})
		if len(d.found) != 1 || d.found[0].Verdict != Failure || strings.Contains(d.found[0].Detail, "msl-hsm key destroy msl-mac --version 2") != (untold == nil) {
			t.Errorf("%q: %+v", untold, d.found)
		}
	}
}
