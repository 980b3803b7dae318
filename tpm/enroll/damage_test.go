package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv"
	"github.com/msl-hsm/msl-hsm/internal/kv/kvtest"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// TestDamagedFile changes bytes all over files, of this and of earlier versions: each is
// refused, or has all of its records and accepts more. No decision is ever lost.
func TestDamagedFile(t *testing.T) {
	dir := t.TempDir()
	former, path := formerFile(t), filepath.Join(dir, "enrollments")
	if err := os.WriteFile(path, former, 0o600); err != nil {
		t.Fatal(err)
	}
	want := recordsIn(t, path)
	today, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string][]byte{"of today": today, "of earlier": former} {
		refused, stride := 0, 397
		if testing.Short() {
			stride = 3971
		}
		for at := 0; at < len(good); at += stride {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(path)
			if err != nil {
				refused++
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, kv.ErrFormat) {
					t.Errorf("%s: byte %d: %v", name, at, err)
				}
				continue
			}
			err = f.Update(context.Background(), func(tx Tx) error {
				return errors.Join(tx.Put(Record{ID: ID{9}, Name: "more", State: Pending}), tx.Delete(ID{9}))
			})
			if err = errors.Join(err, f.Close()); err != nil {
				t.Errorf("%s: byte %d: it opens, and takes no record: %v", name, at, err)
			} else if recordsIn(t, path) != want {
				t.Errorf("%s: byte %d: it has other records", name, at)
			}
		}
		if refused == 0 {
			t.Errorf("%s: every change was overlooked", name)
		}
		t.Logf("%s: %d bytes, %d changes refused", name, len(good), refused)
	}
}

func recordsIn(t *testing.T, path string) string {
	t.Helper()
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return recordsOf(t, f)
}

func recordsOf(t *testing.T, r Records) string {
	t.Helper()
	var all []Record
	err := r.View(context.Background(), func(tx Tx) error {
		all = nil
		return tx.All(func(r Record) error { all = append(all, r); return nil })
	})
	text, errText := json.Marshal(all)
	if err := errors.Join(err, errText); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestFormat refuses the files of others, and leaves them as they are.
func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server")
	s, err := bolt.CreateServer(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFile(path); !errors.Is(err, kv.ErrFormat) || !strings.Contains(err.Error(), `it is of the kind "server"`) {
		t.Errorf("the state of a server is taken: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("it was changed: %v", err)
	}
	enrollments := filepath.Join(t.TempDir(), "enrollments")
	if err := os.WriteFile(enrollments, formerFile(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.OpenServer(enrollments); !errors.Is(err, bolt.ErrFormat) {
		t.Errorf("enrollments are the state of a server: %v", err)
	}
	recordsIn(t, enrollments)
	if _, err := bolt.OpenServer(enrollments); !errors.Is(err, bolt.ErrFormat) || !strings.Contains(err.Error(), `it is of the kind "enrollments"`) {
		t.Errorf("enrollments are the state of a server: %v", err)
	}
}

// TestFunctionsRunAgain has records in a database that runs the functions of transactions
// more than once: their effect happens once.
func TestFunctionsRunAgain(t *testing.T) {
	ctx := context.Background()
	memory := Stored{&kvtest.Memory{}}
	o, f := newOffice(t, accepting(), nil), newForger(t)
	o.c.Records = memory
	var err error
	if o.Authority, err = NewAuthority(o.c); err != nil {
		t.Fatal(err)
	}
	checkError(t, f.enroll(o), nil)
	checkError(t, o.Approve(ctx, ID{1}, "box-1", ""), nil)
	checkError(t, o.Merge(ctx, f.id(), ID{1}, ""), nil)
	checkError(t, o.Reject(ctx, ID{2}, ""), nil)
	checkError(t, o.Remove(ctx, ID{2}), nil)
	checkError(t, o.Remove(ctx, ID{2}), ErrUnknown)
	list, err := o.List(ctx)
	if err != nil || len(list) != 2 || len(o.withdrawn) != 1 {
		t.Errorf("%d records, %d withdrawn, %v", len(list), len(o.withdrawn), err)
	}
	if states, err := memory.Check(); err != nil || states[Revoked] != 1 || states[Approved] != 1 {
		t.Errorf("%v, %v", states, err)
	}
	der, err := o.CRL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if crl, err := x509.ParseRevocationList(der); err != nil || len(crl.RevokedCertificateEntries) != 1 {
		t.Errorf("%+v, %v", crl, err)
	}
}
