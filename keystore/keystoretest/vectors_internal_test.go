package keystoretest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A noWrap is a store whose device has no AES key wrap.
type noWrap struct{ *soft.Store }

// Import makes a key that fails as such a device does.
func (s noWrap) Import(a keystore.Algorithm, raw []byte) (keystore.Key, error) {
	k, err := s.Store.Import(a, raw)
	if r, ok := k.(keystore.Revealer); ok {
		return noReveal{r}, err
	}
	return k, err
}

type noReveal struct{ keystore.Revealer }

// Reveal fails.
func (noReveal) Reveal([]byte) ([]byte, error) {
	return nil, fmt.Errorf("no mechanism: %w", errors.ErrUnsupported)
}

// verdicts are what became of each test.
type verdicts map[string]string

// A part is a test that only notes what it comes to.
type part struct {
	TB
	name string
	all  verdicts
	last *[]func() // what is called at the end
}

func (p part) Run(name string, f func(part)) bool {
	if _, wanted := p.all[name]; !wanted {
		return true
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.all[name] = "ok"
		last := []func(){}
		defer func() {
			for _, f := range last {
				f()
			}
		}()
		f(part{p.TB, name, p.all, &last})
	}()
	<-ended
	return p.all[name] == "ok"
}

// Cleanup registers what is called at the end of the part.
func (p part) Cleanup(f func()) { *p.last = append(*p.last, f) }

// Log is not needed.
func (part) Log(...any) {}

// Errorf notes a wrong verdict.
func (p part) Errorf(string, ...any) { p.all[p.name] = "wrong" }

// Skip notes that something is not offered.
func (p part) Skip(...any) { p.all[p.name] = "not offered" }

// TestNotOffered tells vectors that a device cannot be asked from wrong answers.
func TestNotOffered(t *testing.T) {
	store := noWrap{soft.New()}
	t.Cleanup(func() { store.Close() })
	all := verdicts{"reveal": "", "reveal-padded": "", "unwrap": "", "cipher": ""}
	s := &suite{store: store, other: soft.New()}
	t.Cleanup(func() { s.other.Close() })
	p := part{TB: t, all: all}
	s.testVectors(tester[part]{p, p})
	for name, want := range map[string]string{"reveal": "not offered", "reveal-padded": "not offered", "unwrap": "ok", "cipher": "ok"} {
		if all[name] != want {
			t.Errorf("%s: %q, want %q", name, all[name], want)
		}
	}
}
