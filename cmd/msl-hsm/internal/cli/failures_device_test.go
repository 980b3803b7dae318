//go:build cgo && !nopkcs11

package cli

import (
	"context"
	"crypto"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/failurelog"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/softhsm"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A lostDevice is a device whose keys can be taken away.
type lostDevice struct {
	open      func(t *testing.T) (store keystore.Store, lose func())
	provider  failurelog.Provider
	cause     error
	operation string // how the names of its operations begin
	result    string // and of its results
}

// TestDeviceLost lets the keys of a client vanish: its application gets a clear error,
// and the server a report that names the cause.
func TestDeviceLost(t *testing.T) {
	skipWithRace(t)
	for name, d := range map[string]lostDevice{
		"SoftHSM":     {vanishingSoftHSM, failurelog.PKCS11, keystore.ErrUnavailable, "C_", "CKR_"},
		"TPM":         {vanishingTPM, failurelog.TPM, keystore.ErrUnavailable, "", ""}, // its report names no result
		"cleared TPM": {clearedTPM, failurelog.TPM, keystore.ErrForeign, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "failures.jsonl")
			url, stop := failureServer(t, path)
			defer stop()
			store, lose := d.open(t)
			client := deviceClient(t, store, url)
			if _, err := sendHello(client); !isRefusal(err) { // by a server that does not know the entity
				t.Fatalf("before: %v", err)
			}
			reporter, err := failurelog.Start(failurelog.Config{Identity: "camera", Transport: &mslhttp.Transport{URL: url}})
			if err != nil {
				t.Fatal(err)
			}
			lose()
			_, err = sendHello(client)
			if !errors.Is(err, d.cause) || !strings.Contains(err.Error(), d.result) {
				t.Errorf("the application gets %v", err)
			}
			reporter.Observe(err)
			if err := reporter.Close(); err != nil {
				t.Fatal(err)
			}
			checkDeviceReport(t, path, d)
		})
	}
}

func checkDeviceReport(t *testing.T, path string, d lostDevice) {
	t.Helper()
	var all []failurelog.Record
	if _, err := failurelog.Read(path, func(r failurelog.Record) { all = append(all, r) }); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%d records", len(all))
	}
	r := all[0]
	if r.Entity != "camera" || r.Proven || r.Provider != d.provider || r.Cause == "" ||
		!strings.HasPrefix(r.Operation, d.operation) || !strings.HasPrefix(r.Result, d.result) {
		t.Errorf("got %+v", r)
	}
}

// failureServer takes reports at a URL, where everything else is refused.
func failureServer(t *testing.T, path string) (url string, stop func()) {
	t.Helper()
	log, err := failurelog.OpenLog(path, failurelog.Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&failurelog.Handler{Log: log})
	return server.URL, func() {
		server.Close()
		log.Close()
	}
}

// deviceClient proves itself with a key of the store.
func deviceClient(t *testing.T, store keystore.Store, url string) *msl.Client {
	t.Helper()
	key, err := keystore.Find[crypto.Signer](store, "camera")
	if err != nil {
		t.Fatal(err)
	}
	c := &msl.Client{
		Local:     &entityauth.RSAEntity{Identity: "camera", KeyID: "camera", Key: key},
		Peers:     []msl.EntityScheme{&entityauth.None{Anyone: true}},
		Transport: &mslhttp.Transport{URL: url},
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func sendHello(c *msl.Client) (*msl.Response, error) {
	return c.Do(context.Background(), &msl.Request{Authenticated: true, Body: msl.BytesBody([]byte("hello"))})
}

func isRefusal(err error) bool {
	var peer *msl.PeerError
	return errors.As(err, &peer)
}

func vanishingSoftHSM(t *testing.T) (keystore.Store, func()) {
	token := softhsm.Temp(t)
	store, err := hsm.Open(hsm.Config{URI: token.URI, PIN: token.PIN})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if _, err := store.Create("camera", keystore.RSASign2048); err != nil {
		t.Fatal(err)
	}
	return store, func() {
		if err := os.RemoveAll(filepath.Join(filepath.Dir(token.Config), "tokens")); err != nil {
			t.Fatal(err)
		}
	}
}

func vanishingTPM(t *testing.T) (keystore.Store, func()) {
	p, gone := tpmtest.Start(t), false
	return tpmStore(t, func() (io.ReadWriteCloser, error) {
		if gone {
			return nil, os.ErrNotExist
		}
		return p.Dial()
	}), func() { gone = true; p.Kill() }
}

func clearedTPM(t *testing.T) (keystore.Store, func()) {
	p := tpmtest.Start(t)
	return tpmStore(t, p.Dial), func() { p.Clear(t) }
}

func tpmStore(t *testing.T, dial func() (io.ReadWriteCloser, error)) keystore.Store {
	t.Helper()
	device, err := tpm.NewDevice(dial, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	store, err := device.InitStore(tpm.StoreConfig{State: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if _, err := store.Create("camera", keystore.RSASign2048); err != nil {
		t.Fatal(err)
	}
	return store
}

// TestResultNames compares the results that a report may name with those that the
// PKCS #11 library knows.
func TestResultNames(t *testing.T) {
	known := 0
	for code := uint(1); code < 0x1000; code++ {
		_, name, _ := strings.Cut(pkcs11.Error(code).Error(), "CKR_")
		if name == "" {
			continue
		}
		known++
		i, ok := failurelog.Classify(&hsm.Error{Function: "C_Sign", Code: code})
		if !ok && !errors.Is(&hsm.Error{Code: code}, errors.ErrUnsupported) || ok && (i.Result != "CKR_"+name || i.Operation != "C_Sign" || i.Provider != failurelog.PKCS11) {
			t.Errorf("CKR_%s: got %+v", name, i)
		}
	}
	if known < 80 {
		t.Errorf("the library knows %d results", known)
	}
}
