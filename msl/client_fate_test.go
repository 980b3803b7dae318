package msl

import (
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// TestFateOfDial does not take a key store behind a socket for a peer that no message reached.
func TestFateOfDial(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "unix", Err: syscall.ECONNREFUSED}
	for err, want := range map[error]fate{
		refused: unsent,
		fmt.Errorf("tpm: no TPM: %w: %w", keystore.ErrUnavailable, refused): gone,
	} {
		n := numbering{}
		if n.sent(err, nil, answered); n.fate != want {
			t.Errorf("%v: %d, want %d", err, n.fate, want)
		}
	}
}
