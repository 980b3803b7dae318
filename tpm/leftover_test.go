package tpm_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestLeftovers opens a TPM in which others were killed, with all of its room in
// use.
func TestLeftovers(t *testing.T) {
	for name, uri := range map[string]string{"unix": tpmtest.Serve(t), "tcp": tpmtest.ServeTCP(t)} {
		t.Run(name, func(t *testing.T) {
			c := tpm.Config{URI: uri + "&state=" + filepath.Join(t.TempDir(), "state")}
			if err := must[*tpm.Store](t)(tpm.Init(c)).Close(); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				leave(t, name, uri)
				d := must[*tpm.Device](t)(tpm.Open(uri))
				if handles := inUse(t, d); len(handles) > 0 {
					t.Errorf("%x are left in the TPM", handles)
				}
				if d.Capabilities().Manufacturer != "IBM" {
					t.Errorf("capabilities %+v", d.Capabilities())
				}
				d.Close()
				leave(t, name, uri)
				s := must[*tpm.Store](t)(tpm.OpenStore(c))
				if err := work(s); err != nil {
					t.Error(err)
				}
				s.Close()
			}
		})
	}
}

// TestSessionsOfOthers gives way to a program that keeps a session for later, as tpm2-tools do, in a
// context that it saved: it stays. What is loaded when that program has ended is flushed.
func TestSessionsOfOthers(t *testing.T) {
	uri := tpmtest.Serve(t)
	d := must[*tpm.Device](t)(tpm.Open(uri))
	defer d.Close()
	d.MakeWay()
	leave(t, "unix", uri)
	if handles := inUse(t, d); len(handles) != 2 {
		t.Errorf("%x are in the TPM, want the two saved sessions", handles)
	}
}

// leave fills a TPM with objects and sessions, one of them saved, on a
// connection of its own.
func leave(t *testing.T, network, uri string) {
	t.Helper()
	_, address, _ := strings.Cut(uri, "=")
	conn := must[net.Conn](t)(net.Dial(network, address))
	defer conn.Close()
	if err := fill(transport.FromReadWriter(conn)); err != nil {
		t.Fatal(err)
	}
}

func fill(tp transport.TPM) error {
	for range 3 {
		_, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tp)
		if err != nil {
			return err
		}
	}
	kinds := []tpm2.TPMSE{tpm2.TPMSEHMAC, tpm2.TPMSEPolicy, tpm2.TPMSEHMAC, tpm2.TPMSEPolicy, tpm2.TPMSEHMAC}
	for i, kind := range kinds {
		answer, err := tpm2.StartAuthSession{
			TPMKey: tpm2.TPMRHNull, Bind: tpm2.TPMRHNull, NonceCaller: tpm2.TPM2BNonce{Buffer: make([]byte, 16)},
			SessionType: kind, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}, AuthHash: tpm2.TPMAlgSHA256,
		}.Execute(tp)
		if err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
		if i < 2 {
			if _, err := (tpm2.ContextSave{SaveHandle: answer.SessionHandle}).Execute(tp); err != nil {
				return err
			}
		}
	}
	return nil
}

// inUse asks the TPM itself.
func inUse(t *testing.T, d *tpm.Device) (all []tpm2.TPMHandle) {
	t.Helper()
	err := d.Do(func(tp transport.TPM) error {
		for _, first := range []uint32{0x80000000, 0x02000000, 0x03000000} {
			answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(tp)
			if err != nil {
				return err
			}
			handles, err := answer.CapabilityData.Data.Handles()
			if err != nil {
				return err
			}
			all = append(all, handles.Handle...)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return all
}

// TestUnmanaged checks that nothing is flushed behind a resource manager, which
// other processes use too.
func TestUnmanaged(t *testing.T) {
	for path, want := range map[string]bool{
		"/dev/tpm0": true, "/dev/tpm12": true, "/dev/tpmrm0": false, "/dev/tpm": false, "/dev/vtpmx": false, "/tmp/tpm0/fifo": false,
	} {
		if tpm.Unmanaged(path) != want {
			t.Errorf("%s: unmanaged %v, want %v", path, !want, want)
		}
	}
}
