package state

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

func pskEntity(identity string) EntityRecord {
	return EntityRecord{
		Identity: identity,
		Scheme:   "PSK",
		PSK:      &msl.SealedPSK{Encryption: []byte{1}, MAC: []byte{2}, Wrapping: []byte{3}},
		Created:  time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC),
	}
}

func rsaEntity(t *testing.T, identity string) (EntityRecord, *rsa.PublicKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return EntityRecord{Identity: identity, Scheme: "RSA", KeyID: "key 1", PublicKey: der}, &key.PublicKey
}

func TestEntityRestart(t *testing.T) {
	s := newServer(t)
	psk := pskEntity("device")
	psk.KeyExchanges, psk.UserSchemes = []string{"SYMMETRIC_WRAPPED"}, []string{}
	pair, public := rsaEntity(t, "service")
	for _, e := range []EntityRecord{psk, pair} {
		if err := s.AddEntity(e); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s)
	for range 2 { // from the file and from memory
		e, err := s.Entity(t.Context(), "device")
		if err != nil {
			t.Fatal(err)
		}
		want := &msl.Entity{Identity: "device", Scheme: "PSK", PSK: psk.PSK, KeyExchanges: psk.KeyExchanges, UserSchemes: []string{}}
		if d := cmp.Diff(want, e); d != "" {
			t.Error(d)
		}
		e, err = s.Entity(t.Context(), "service")
		if err != nil {
			t.Fatal(err)
		}
		if !public.Equal(e.PublicKey) || e.KeyID != "key 1" || e.KeyExchanges != nil || e.UserSchemes != nil {
			t.Errorf("entity %+v", e)
		}
	}
	list, err := s.Entities()
	if err != nil || len(list) != 2 || cmp.Diff(list[0], psk) != "" || list[1].Created.IsZero() {
		t.Errorf("list %+v, %v", list, err)
	}
}

// TestEntityForm fails if a field stored in files is renamed.
func TestEntityForm(t *testing.T) {
	e := pskEntity("device")
	e.UserSchemes = []string{}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"identity":"device","scheme":"PSK","psk":{"Encryption":"AQ==","MAC":"Ag==","Wrapping":"Aw=="},` +
		`"userschemes":[],"created":"2024-05-06T07:08:09Z"}`
	if string(b) != want {
		t.Errorf("%s", b)
	}
}

func TestEntityLife(t *testing.T) {
	s := newServer(t)
	ctx := t.Context()
	find := func() error {
		_, err := s.Entity(ctx, "device")
		return err
	}
	wantErr(t, find(), keystore.ErrNotFound)
	wantErr(t, s.RemoveEntity("device"), ErrUnknown)
	wantErr(t, s.AddEntity(pskEntity("device")), nil)
	wantErr(t, s.AddEntity(pskEntity("device")), ErrExists)
	wantErr(t, find(), nil)

	wantErr(t, s.RemoveEntity("device"), nil)
	wantErr(t, find(), keystore.ErrNotFound)
	wantErr(t, s.Revoked(ctx, "device", ""), msl.ErrMasterTokenIdentityRevoked)
	wantErr(t, s.AddEntity(pskEntity("device")), nil)
	wantErr(t, s.Revoked(ctx, "device", ""), nil)
	wantErr(t, find(), nil)

	wantErr(t, s.RevokeEntity("device"), nil)
	wantErr(t, s.RevokeEntity("device"), nil)
	if e, err := s.Entity(ctx, "device"); err != nil || !e.Revoked {
		t.Errorf("revoked entity %+v, %v", e, err)
	}
	wantErr(t, s.RemoveEntity("device"), nil)
	if e, err := s.Entity(ctx, "device"); err != nil || !e.Revoked || e.Scheme != "" || e.PSK != nil {
		t.Errorf("revoked and removed entity %+v, %v", e, err)
	}
	wantErr(t, s.AddEntity(pskEntity("device")), ErrRevoked)
	list, err := s.Entities()
	if err != nil || len(list) != 1 || !list[0].Revoked || !list[0].Removed || list[0].Since.IsZero() {
		t.Errorf("list %+v, %v", list, err)
	}
	wantErr(t, s.UnrevokeEntity("device"), nil)
	wantErr(t, s.Revoked(ctx, "device", ""), msl.ErrMasterTokenIdentityRevoked)
	if s.UnrevokeEntity("device") == nil {
		t.Error("unrevoked twice")
	}
	wantErr(t, s.AddEntity(pskEntity("device")), nil)
	wantErr(t, s.Revoked(ctx, "device", ""), nil)
}

func TestEntityRefused(t *testing.T) {
	s := newServer(t)
	for name, change := range map[string]func(*EntityRecord){
		"no name":         func(e *EntityRecord) { e.Identity = "" },
		"name not UTF-8":  func(e *EntityRecord) { e.Identity = "\xff" },
		"name of control": func(e *EntityRecord) { e.Identity = "a\x1b[2J" },
		"name too long":   func(e *EntityRecord) { e.Identity = string(make([]byte, msl.MaxName+1)) },
		"no scheme":       func(e *EntityRecord) { e.Scheme = "" },
		"no keys":         func(e *EntityRecord) { e.PSK = nil },
		"a key missing":   func(e *EntityRecord) { e.PSK = &msl.SealedPSK{Encryption: []byte{1}, MAC: []byte{2}} },
		"RSA without key": func(e *EntityRecord) { e.Scheme, e.KeyID = "RSA", "k" },
		"bad public key":  func(e *EntityRecord) { e.PublicKey = []byte{0x30, 0} },
		"bad certificate": func(e *EntityRecord) { e.Certificate = []byte{0x30, 0} },
	} {
		e := pskEntity("device")
		change(&e)
		if s.AddEntity(e) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if list, err := s.Entities(); err != nil || len(list) != 0 {
		t.Errorf("list %+v, %v", list, err)
	}
}

// TestEntityCache looks up an entity while it changes: once a change has returned,
// nobody sees the old entity.
func TestEntityCache(t *testing.T) {
	s := newServer(t)
	if err := s.AddEntity(pskEntity("device")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.Entity(t.Context(), "device")
				}
			}
		})
	}
	for i := range 100 {
		change, want := s.RevokeEntity, true
		if i%2 == 1 {
			change, want = s.UnrevokeEntity, false
		}
		if err := change("device"); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if e, err := s.Entity(t.Context(), "device"); err != nil || e.Revoked != want {
				t.Fatalf("change %d: %+v, %v", i, e, err)
			}
		}
	}
	close(stop)
	readers.Wait()
}
