package bolt

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/msl"
)

func openClient(t *testing.T, path, name string) *Client {
	t.Helper()
	c, err := OpenClient(path, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestClientRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	record := msl.ClientRecord{
		MasterToken:   []byte(`{"tokendata":"AA=="}`),
		KeyExchange:   "ASYMMETRIC_WRAPPED",
		Keep:          []byte{0, 1, 2},
		UserIDTokens:  map[string][]byte{"ann": {3}, "björn": {4}},
		ServiceTokens: [][]byte{{5}, {6, 7}},
		ClockOffset:   -12,
		ClockKnown:    true,
	}
	for i := range int64(3) {
		for _, name := range []string{"home", "work"} {
			c := openClient(t, path, name)
			want := msl.ClientRecord{}
			if i > 0 && name == "work" {
				want = record
			}
			got, err := c.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			for _, serial := range []int64{7, 1 << 53} {
				if id, err := c.NextID(t.Context(), serial); id != i+1 || err != nil {
					t.Errorf("%s: NextID(%d) = %d, %v", name, serial, id, err)
				}
			}
			if name == "work" {
				if err := c.Save(t.Context(), record); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		}
	}
}

func TestClientDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	c := openClient(t, path, "default")
	advises := func(err error) {
		t.Helper()
		wantErr(t, err, ErrDamaged)
		if err == nil || !strings.Contains(err.Error(), "delete it to start a new session") || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v", err)
		}
	}
	for _, value := range []string{"", "{", `{"new":1}`} {
		err := c.db.Update(t.Context(), func(tx kv.Tx) error { return tx.Put("records", []byte("default"), []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Load(t.Context())
		advises(err)
	}
	c.Close()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(content, []byte(`{"new":1}`), []byte(`{"old":1}`)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenClient(path, "default")
	advises(err)
}

func TestClientRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	if _, err := OpenClient(path, ""); err == nil {
		t.Error("a client without a name")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file is made for it")
	}
	c := openClient(t, path, "default")
	if c.Save(t.Context(), msl.ClientRecord{UserIDTokens: map[string][]byte{"\xff": {1}}}) == nil {
		t.Error("a name that JSON changes is saved")
	}
}

// TestClients forgets the tokens of one client of a file: they are not in the file any
// more, and those of the other client and the counters are.
func TestClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	if _, err := OpenClients(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, name := range []string{"work", "home"} {
		c := openClient(t, path, name)
		_, err := c.NextID(t.Context(), 1)
		wantErr(t, first(err, c.Save(t.Context(), msl.ClientRecord{KeyExchange: "tokens of " + name}), c.Close()), nil)
	}
	all, err := OpenClients(path)
	wantErr(t, err, nil)
	names, err := all.Names()
	if d := cmp.Diff([]string{"home", "work"}, names); d != "" || err != nil {
		t.Errorf("%v, %s", err, d)
	}
	work := all.Client("work")
	wantErr(t, first(work.Save(t.Context(), msl.ClientRecord{}), all.Close(), CompactClients(path)), nil)
	content, err := os.ReadFile(path)
	if err != nil || bytes.Contains(content, []byte("tokens of work")) || !bytes.Contains(content, []byte("tokens of home")) {
		t.Errorf("the file has the tokens of work: %v", err)
	}
	for name, want := range map[string]string{"work": "", "home": "tokens of home"} {
		c := openClient(t, path, name)
		r, err := c.Load(t.Context())
		id, errID := c.NextID(t.Context(), 1)
		if r.KeyExchange != want || id != 2 || errors.Join(err, errID) != nil {
			t.Errorf("%s: %+v, id %d, %v", name, r, id, errors.Join(err, errID))
		}
		c.Close()
	}
}
