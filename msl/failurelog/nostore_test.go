package failurelog

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

func TestNilReporter(t *testing.T) {
	var r *Reporter
	r.Observe(errPoison)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"nobody":    {Transport: stuck{}},
		"nowhere":   {Identity: "x"},
		"version":   {Identity: "x", Transport: stuck{}, Version: "of ada"},
		"kind":      {Identity: "x", Transport: stuck{}, Report: []Kind{"everything"}},
		"no folder": {Identity: "x", Transport: stuck{}, Spool: filepath.Join(t.TempDir(), "no", "spool")},
	} {
		if r, err := Start(c); err == nil {
			t.Errorf("%s: no error", name)
			r.Close()
		}
	}
}

// TestNoStore lets a client whose key store fails report that, with a store that counts
// every call.
func TestNoStore(t *testing.T) {
	calls := 0
	store := counting{calls: &calls}
	h, path := newHandler(t)
	untouched(t, h)
	d := &direct{handler: h}
	app := &msl.Client{
		Local: &entityauth.NoneEntity{Identity: "x"}, Peers: []msl.EntityScheme{&entityauth.None{Anyone: true}}, Transport: d,
		KeyExchanges: []msl.Offerer{&keyx.AsymmetricWrapped{Store: store}},
	}
	defer app.Close()
	_, failure := app.Do(context.Background(), &msl.Request{Encrypted: true})
	if failure == nil || calls == 0 || d.count() > 0 {
		t.Fatalf("error %v, %d calls of the store, %d messages", failure, calls, d.count())
	}
	before := calls
	r, err := Start(Config{Identity: "x", Transport: d})
	if err != nil {
		t.Fatal(err)
	}
	r.Observe(failure)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got := records(t, path); len(got) != 1 || got[0].Result != "CKR_DEVICE_REMOVED" || got[0].Operation != "C_Sign" {
		t.Errorf("got %+v", got)
	}
	if calls != before {
		t.Errorf("the report took %d calls of the key store", calls-before)
	}
}

// A counting store fails, and counts.
type counting struct {
	poison
	calls *int
}

func (c counting) fail() error {
	*c.calls++
	return errPoison
}

func (c counting) Generate(keystore.Algorithm) (keystore.Key, error) { return nil, c.fail() }
func (c counting) Lookup(string) ([]keystore.Version, error)         { return nil, c.fail() }
func (c counting) Seal(keystore.Key, []byte) ([]byte, error)         { return nil, c.fail() }
func (c counting) Close() error                                      { return c.fail() }
func (c counting) Unseal(keystore.Algorithm, []byte, []byte) (keystore.Key, error) {
	return nil, c.fail()
}
