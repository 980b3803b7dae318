package bolt

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

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
			for _, serial := range []int64{7, maxNumber} {
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

func TestNextIDWraps(t *testing.T) {
	c := openClient(t, filepath.Join(t.TempDir(), "client"), "default")
	key, err := pairKey("default", 1)
	if err != nil {
		t.Fatal(err)
	}
	err = c.db.Update(func(tx *bbolt.Tx) error {
		return put(tx, bucketCounts, key, largestID{id: maxNumber - 1}.encode())
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{maxNumber, 0, 1} {
		if id, err := c.NextID(t.Context(), 1); id != want || err != nil {
			t.Errorf("NextID = %d, %v, want %d", id, err, want)
		}
	}
}

func TestClientDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	c := openClient(t, path, "default")
	spoil := func(value []byte) {
		err := c.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(bucketRecords)).Put([]byte("default"), value)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range [][]byte{{}, []byte("{}"), frame(bucketRecords, []byte("other"), []byte("{}")),
		frame(bucketRecords, []byte("default"), []byte(`{"new":1}`))} {
		spoil(value)
		_, err := c.Load(t.Context())
		wantErr(t, err, ErrDamaged)
		if err == nil || !strings.Contains(err.Error(), "delete it to start a new session") || !strings.Contains(err.Error(), path) {
			t.Errorf("error %v", err)
		}
	}
	spoil([]byte("{}"))
	c.Close()
	_, err := OpenClient(path, "default")
	wantErr(t, err, ErrDamaged)
	if err == nil || !strings.Contains(err.Error(), "delete it to start a new session") {
		t.Errorf("error %v", err)
	}
}

func TestClientRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client")
	if _, err := OpenClient(path, ""); err == nil {
		t.Error("a client without a name")
	}
	c := openClient(t, path, "default")
	if c.Save(t.Context(), msl.ClientRecord{UserIDTokens: map[string][]byte{"\xff": {1}}}) == nil {
		t.Error("a name that JSON changes is saved")
	}
}
