package msl_test

import (
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
)

// TestFindIssuer pairs versions by their numbers, and finds nothing where a key is
// missing, is another one, or has no partner.
func TestFindIssuer(t *testing.T) {
	store := soft.Config{SealPrefix: "net"}.New()
	defer store.Close()
	create := func(role keystore.Role, times int) {
		t.Helper()
		for range times {
			if _, err := store.Create(role.Label("net"), role.Algorithm()); err != nil {
				t.Fatal(err)
			}
		}
	}
	wants := func(kind error) {
		t.Helper()
		if i, err := msl.FindIssuer(store, "server", "net"); i != nil || !errors.Is(err, kind) {
			t.Errorf("%v, %v; want %v", i, err, kind)
		}
	}
	wants(keystore.ErrNotFound)
	create(keystore.RoleIssuerEncryption, 3)
	wants(keystore.ErrNotFound)
	create(keystore.RoleIssuerMAC, 2)
	i, err := msl.FindIssuer(store, "server", "net")
	if err != nil || len(i.Ring()) != 2 || i.Ring()[0].Version != 2 || i.Ring()[1].Version != 1 || i.Name != "server" {
		t.Fatalf("%+v, %v", i, err)
	}
	if err := store.Destroy(keystore.RoleIssuerMAC.Label("net"), 2); err != nil {
		t.Fatal(err)
	}
	if err := store.Destroy(keystore.RoleIssuerEncryption.Label("net"), 1); err != nil {
		t.Fatal(err)
	}
	wants(msl.ErrVersionsApart)
	if _, err := msl.FindServiceTokenKeys(store, "server", "net"); !errors.Is(err, keystore.ErrNotFound) {
		t.Error(err)
	}
	create(keystore.RoleServiceEncryption, 1)
	create(keystore.RoleServiceMAC, 1)
	if found, err := msl.FindServiceTokenKeys(store, "server", "net"); err != nil || found[""] == nil {
		t.Errorf("%v, %v", found, err)
	}
}

func TestStaticDirectory(t *testing.T) {
	d := msl.StaticDirectory{"a": {Identity: "a"}}
	if e, err := d.Entity(t.Context(), "a"); err != nil || e.Identity != "a" {
		t.Errorf("%v, %v", e, err)
	}
	if e, err := d.Entity(t.Context(), "b"); e != nil || !errors.Is(err, keystore.ErrNotFound) {
		t.Errorf("%v, %v", e, err)
	}
}
