package modulecheck

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	secrets "github.com/msl-hsm/msl-hsm/internal/secret"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
)

// The steps, each in a process of its own.
const (
	stepAbout = "about"
	stepClean = "clean"
	stepSuite = "suite"
	stepMake  = "make"
	stepOther = "other"
	stepOurs  = "ours"
)

// A step is the work of one process.
type step struct {
	request
	*reporter
	pin *lockedmem.Buffer
}

// open opens the token, whatever the module does with keys: that is what is tried.
func (s *step) open() (*hsm.Store, error) {
	c := hsm.Config{
		URI: s.URI, Initialize: s.Initialize, Wait: s.Wait, CallTimeout: s.CallTimeout, SealPrefix: strings.TrimSuffix(keystoretest.Prefix, "-"),
		AllowWeak: slices.Collect(maps.Keys(hsm.Weaknesses())),
	}
	if s.pin != nil {
		fd, err := s.pinPipe()
		if err != nil {
			return nil, err
		}
		c.PIN = hsm.PINSource(fmt.Sprintf("fd:%d", fd))
	}
	return hsm.Open(c)
}

// pinPipe returns a descriptor from which the PIN can be read once. The reader closes it.
func (s *step) pinPipe() (int, error) {
	r, err := secrets.Pipe(s.pin.Bytes())
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return syscall.Dup(int(r.Fd()))
}

// with opens the token for one piece of work.
func (s *step) with(work func(*hsm.Store) error) error {
	store, err := s.open()
	if err != nil {
		return err
	}
	return errors.Join(work(store), store.Close())
}

// own lists the keys in the token that have labels of this test.
func own(store *hsm.Store) ([]keystore.Info, error) {
	all, err := store.List()
	return slices.DeleteFunc(all, func(i keystore.Info) bool { return !strings.HasPrefix(i.Label, keystoretest.Prefix) }), err
}

// clean destroys them.
func (s *step) clean() error {
	return s.with(func(store *hsm.Store) error {
		left, err := own(store)
		for _, k := range left {
			if e := store.Destroy(k.Label, k.Version); !errors.Is(e, keystore.ErrNotFound) {
				err = errors.Join(err, e)
			}
		}
		if err != nil {
			return err
		}
		if left, err = own(store); len(left) > 0 {
			return fmt.Errorf("modulecheck: %d keys are left, such as %q: %w", len(left), left[0].Label, keystore.ErrExists)
		}
		return err
	})
}

// suite tries the module, and then the store on it.
func (s *step) suite() error {
	err := s.with(func(store *hsm.Store) error {
		left, err := own(store)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("modulecheck: the token has keys with labels of this test, such as %q; another test may be running, or was cut off: remove them with --clean: %w", left[0].Label, keystore.ErrExists)
		}
		if err != nil {
			return err
		}
		if err := claim(store); err != nil {
			return err
		}
		s.probe(store)
		s.seal(store)
		return nil
	})
	if err != nil {
		return err
	}
	newCheck(s.reporter, "").run(func(c *check) {
		keystoretest.TestStore(c, func(c *check) keystore.Store {
			store, err := s.open()
			if err != nil {
				c.Fatal(err)
			}
			return store
		})
	})
	return nil
}

// claim makes a key that says that this test is running, and fails if another test has done so since the
// keys were listed: both would find each other's keys. Versions of a key are made one after the other. A
// token that makes none of these keys is tried as it is.
func claim(store *hsm.Store) error {
	const label = keystoretest.Prefix + "running"
	for _, a := range []keystore.Algorithm{keystore.HMACSHA256, keystore.AES128CBC, keystore.ECDSAP256, keystore.RSASign2048} {
		own, err := store.Create(label, a)
		if err != nil {
			continue // the checks tell why
		}
		if own.Number == 1 {
			return nil
		}
		err = fmt.Errorf("modulecheck: another test of this token is running: wait until it ends: %w", keystore.ErrExists)
		return errors.Join(err, store.Destroy(label, own.Number))
	}
	return nil
}

// probe tells what the checks of package hsm see.
func (s *step) probe(store *hsm.Store) {
	s.write(event{Begins: probed})
	report, err := store.Probe()
	if err != nil {
		s.of(probed+"/device", err)
	}
	for _, c := range report {
		s.result(probeResult(c))
	}
}

// probeResult is a check of package hsm. A server refuses a module for a required one.
func probeResult(c hsm.Check) Result {
	r := Result{Name: probed + "/" + c.Name, Verdict: Wrong, Detail: c.Detail, Refused: !c.OK && c.Required}
	if function, code, found := strings.Cut(c.Detail, ": CKR_"); found {
		r.Answer = strings.TrimPrefix(function, "hsm: ") + ": CKR_" + code
	}
	switch {
	case c.OK:
		r.Verdict = OK
	case !c.Untried && c.Detail != "", !c.Required:
		r.Verdict = Missing
	}
	return r
}

// seal makes the sealing keys, and tells what is weak about them.
func (s *step) seal(store *hsm.Store) {
	s.write(event{Begins: sealingKeys})
	for _, role := range keystore.SealingRoles() {
		label := role.Label(strings.TrimSuffix(keystoretest.Prefix, "-"))
		c := newCheck(s.reporter, sealingKeys+"/"+role.Algorithm().String())
		if _, err := store.Create(label, role.Algorithm()); err != nil {
			c.Error(err)
		} else if weak, err := weaknesses(store, label); err != nil || len(weak) > 0 {
			c.Errorf("%s%v", strings.Join(weak, "; "), orNothing(err))
		}
		r := c.verdict()
		r.Refused = r.Verdict != OK
		s.result(r)
	}
}

// orNothing is what is printed of an error.
func orNothing(err error) any {
	if err == nil {
		return ""
	}
	return err
}

// weaknesses are those of a provisioned key.
func weaknesses(store *hsm.Store, label string) ([]string, error) {
	all, err := own(store)
	if err != nil {
		return nil, err
	}
	for _, k := range all {
		if k.Label == label {
			return k.Weaknesses, nil
		}
	}
	return nil, fmt.Errorf("modulecheck: %q is not listed: %w", label, keystore.ErrNotFound)
}
