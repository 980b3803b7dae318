package bolt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// sample makes a file with every kind of page and record, and returns it.
func sample(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	s, err := OpenServer(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.cost = cheap
	for i := range 12 { // every step a transaction, so that pages become free
		err = errors.Join(err, s.AddEntity(pskEntity(fmt.Sprint("device ", i))))
	}
	err = errors.Join(err, s.RevokeEntity("device 1"), s.RemoveEntity("device 2"),
		s.AddUser("ann", []byte("correct horse")), s.RevokeUser("bob"))
	_, renewErr := s.Renew(t.Context(), "device 3", 1, 1)
	err = errors.Join(err, renewErr, s.db.Update(func(tx *bbolt.Tx) error {
		for i := range int64(200) { // more than one page
			key, _ := pairKey("device", i)
			if err := put(tx, bucketIDs, key, largestID{i, time.Unix(i, 0)}.encode()); err != nil {
				return err
			}
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// use opens a file and reads all of it.
func use(path string) ([]EntityRecord, error) {
	s, err := OpenServer(path)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	s.cost = cheap
	_, usersErr := s.Users()
	_, pruneErr := s.Prune(time.Unix(0, 0))
	list, err := s.Entities()
	return list, errors.Join(err, usersErr, pruneErr)
}

// TestFlippedBytes changes bytes all over the file: it is refused, or the byte
// did not matter. Nothing crashes.
func TestFlippedBytes(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	const want = 12 // one of them removed, but its mark is listed
	stride := 41
	if testing.Short() {
		stride = 997
	}
	refused := 0
	for at := 0; at < len(good); at += stride {
		bad := bytes.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := use(path)
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d: %v", at, err)
			}
		} else if len(list) != want {
			t.Errorf("byte %d: %d entities", at, len(list))
		}
	}
	if refused == 0 {
		t.Error("every change was overlooked")
	}
	t.Logf("%d bytes, %d changes refused", len(good), refused)
}

// TestTruncated cuts the file off.
func TestTruncated(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	for size := 1; size < len(good); size += 509 {
		if err := os.WriteFile(path, good[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := use(path)
		if err == nil && len(list) != 12 {
			t.Errorf("%d bytes: %d entities", size, len(list))
		}
		if err != nil && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "backup")) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestRefusedFileIsFree checks that a refused file is not left locked.
func TestRefusedFileIsFree(t *testing.T) {
	good := sample(t)
	path := filepath.Join(t.TempDir(), "state")
	for _, b := range [][]byte{good[:len(good)/2], good} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := use(path); errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
}

func TestFormat(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  error
		says  string
	}{
		"newer":    {`{"kind":"server","version":2,"more":true}`, ErrFormat, "use a newer msl-hsm"},
		"older":    {`{"kind":"server","version":0}`, ErrDamaged, "version 0"},
		"other":    {`{"kind":"client","version":1}`, ErrFormat, "name another file"},
		"no JSON":  {`{`, ErrDamaged, "format"},
		"no value": {``, ErrDamaged, "format"},
	} {
		s := newServer(t)
		err := s.db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte(formatBucket)).Put([]byte(formatKey), []byte(c.value))
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		_, err = OpenServer(s.path)
		wantErr(t, err, c.want)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestMissingPart removes what is not a record: an empty part must not take the
// place of a lost one.
func TestMissingPart(t *testing.T) {
	for _, name := range []string{bucketIDs, bucketEntityMarks, formatBucket} {
		s := newServer(t)
		if err := s.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(name)) }); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if _, err := OpenServer(s.path); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzPages writes over a part of a file and cuts it off: whatever checkPages lets
// pass, bbolt reads without a crash.
func FuzzPages(f *testing.F) {
	good := sample(f)
	for at := 0; at < len(good); at += 2048 {
		f.Add(uint32(at), []byte{0xff, 0xff}, uint32(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, over []byte, cut uint32) {
		file := bytes.Clone(good)
		copy(file[int(at)%len(file):], over)
		file = file[:len(file)-int(cut)%len(file)]
		err := checkPages(bytes.NewReader(file), int64(len(file)), os.Getpagesize())
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		use(path)
	})
}

func FuzzRecords(f *testing.F) {
	f.Add(largestID{1, time.Unix(2, 0)}.encode())
	f.Add(mark{revoked: true, since: time.Unix(2, 0)}.encode())
	f.Add(encodeKeeps([]keep{{time.Hour, time.Unix(2, 0)}, {24 * time.Hour, time.Unix(3, 0)}}))
	f.Add(encodeInts(markRevoked|markProfiles|markSuffixes, 2))
	f.Add(mark{counts: time.Unix(2, 0)}.encode())
	f.Add(mark{removed: true, since: time.Unix(2, 0), counts: time.Unix(3, 0)}.encode())
	f.Add(newestSequence{}.encode())
	for _, v := range []any{pskEntity("device"), hashPassword(cheap, nil, time.Now())} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLargestID(b); err == nil && !bytes.Equal(l.encode(), b) {
			t.Error("an id has two forms")
		}
		if q, err := decodeNewestSequence(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Error("a sequence has two forms")
		}
		if m, err := decodeMark(b); err == nil && !bytes.Equal(m.encode(), b) {
			t.Error("a mark has two forms")
		}
		if all, err := decodeKeeps(b); err == nil && !bytes.Equal(encodeKeeps(all), b) {
			t.Error("keeps have two forms")
		}
		if e, err := decodeEntity("device", b, mark{}); err == nil {
			e.entity()
		}
		decodePassword(b)
		payload, err := unframe("x", []byte("key"), frame("x", []byte("key"), b))
		if err != nil || !bytes.Equal(payload, b) {
			t.Error("frame is not undone")
		}
	})
}
