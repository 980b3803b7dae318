package keys

import (
	"bytes"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOlderLists replaces the file of revocation lists with others, while a server uses it and
// when its configuration is read again: no certificate that was revoked comes back.
func TestOlderLists(t *testing.T) {
	one, two := issuerNamed(t, "one"), issuerNamed(t, "two")
	issuers := []*x509.Certificate{one.certificate, two.certificate}
	old, now := time.Now().Add(-time.Hour), time.Now().Add(-2*time.Minute)
	ofOne, ofTwo := one.crlOf(t, 2, now), two.crlOf(t, 2, now)
	for name, next := range map[string]struct {
		text []byte
		want string
	}{
		"the same":               {slices.Concat(ofOne, ofTwo), ""},
		"newer":                  {slices.Concat(one.crlOf(t, 3, now.Add(time.Minute)), ofTwo), ""},
		"older":                  {slices.Concat(one.crlOf(t, 1, old), ofTwo), `of "CN=one" is dated`},
		"older, and the same":    {slices.Concat(one.crlOf(t, 1, old), ofOne, ofTwo), ""},
		"one of two":             {ofOne, `of "CN=two" is in use, but missing`},
		"of a stranger":          {issuerNamed(t, "three").crl(t, 2), "not of a known issuer"},
		"of the name of another": {slices.Concat(issuerNamed(t, "one").crl(t, 2), ofTwo), `of "CN=one"`},
		"empty":                  {nil, "the file of revocation lists is empty: put the authority's whole list there"},
		"half":                   {ofOne[:len(ofOne)/2], "damaged block of PEM: put the authority's whole list there"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lists")
			put := func(text []byte) {
				t.Helper()
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			put(slices.Concat(ofOne, ofTwo))
			var log bytes.Buffer
			used, err := OpenCRLs("server.x", path, issuers, nil, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			before := used.Current()
			os.Remove(path)
			put(next.text)
			again, err := OpenCRLs("server.x", path, issuers, used, nil)
			if next.want == "" != (err == nil) || err != nil && (!strings.Contains(err.Error(), next.want) || again != nil) {
				t.Errorf("reloaded: %v, want %q", err, next.want)
			}
			for range 3 { // it is told once
				used.Checked = time.Time{}
				if kept := slices.Equal(used.Current(), before); next.want != "" && !kept {
					t.Error("lists were replaced")
				}
			}
			if told := strings.Count(log.String(), "the earlier ones stay in use"); next.want != "" && told != 1 || next.want == "" && log.Len() > 0 {
				t.Errorf("told %d times: %s", told, &log)
			}
			put(slices.Concat(ofOne, ofTwo))
			used.Checked = time.Time{}
			if used.Current(); next.want != "" && !strings.Contains(log.String(), "can be read again") {
				t.Errorf("told %s", &log)
			}
			if fewer, err := OpenCRLs("server.x", path+".one", issuers[:1], used, nil); err == nil {
				t.Errorf("there is no such file: %v", fewer)
			}
		})
	}
	// an authority that is trusted no more needs no list
	path := filepath.Join(t.TempDir(), "lists")
	for _, text := range [][]byte{slices.Concat(ofOne, ofTwo), ofOne} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := OpenCRLs("server.x", path, issuers, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, ofOne, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenCRLs("server.x", path, issuers[:1], before, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestCRLCheck has a file that is removed, and then a list that gets old.
func TestCRLCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, path := issuerNamed(t, "one"), filepath.Join(t.TempDir(), "lists")
		if err := os.WriteFile(path, one.crlOf(t, 1, time.Now()), 0o600); err != nil {
			t.Fatal(err)
		}
		lists, err := OpenCRLs("server.x", path, []*x509.Certificate{one.certificate}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		check := func(want string) {
			t.Helper()
			time.Sleep(crlEvery)
			if err := lists.Check(); want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		check("")
		if from, due, until := lists.Lifetime(); until.Sub(from) != time.Hour || until.Sub(due) != 6*time.Minute {
			t.Errorf("made at %v, to be replaced by %v, ends at %v", from, due, until)
		}
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		check("the earlier lists stay in use: stat " + path)
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
		check("")
		time.Sleep(time.Hour)
		check("has been out of date since")
	})
}

// TestOlderListBeside has the former list of an authority beside its next one, which is enough: its
// certificates are accepted until that one ends, too.
func TestOlderListBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, path := issuerNamed(t, "one"), issuerNamed(t, "two"), filepath.Join(t.TempDir(), "lists")
		former := one.crlOf(t, 1, time.Now()) // each lasts an hour
		time.Sleep(2 * time.Hour)
		now := time.Now()
		text := slices.Concat(one.crlOf(t, 2, now), former)
		time.Sleep(time.Minute)
		text = append(text, two.crlOf(t, 1, time.Now())...)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		lists, err := OpenCRLs("server.x", path, []*x509.Certificate{one.certificate, two.certificate}, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(crlEvery)
		if _, _, until := lists.Lifetime(); lists.Check() != nil || lists.OutOfDate() != nil || log.Len() > 0 || until.Sub(now) != time.Hour {
			t.Errorf("checked: %v; ends at %v, now is %v; told %s", lists.Check(), until, now, &log)
		}
		time.Sleep(time.Hour)
		if lists.Check() == nil || lists.OutOfDate() == nil || strings.Count(log.String(), "cannot be used") != 1 {
			t.Errorf("once all ended: %v, told %s", lists.Check(), &log)
		}
	})
}
