package tpm

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDialAdvice says what to do about a socket that leads to no TPM, or not in time.
func TestDialAdvice(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		network, address string
		timeout          time.Duration
		want             string
	}{
		{"unix", filepath.Join(t.TempDir(), "none"), time.Second, "start the program that is the TPM"},
		{"tcp", l.Addr().String(), 1, "another program may be using it"},
	} {
		if _, err := dialNet(tt.network, tt.address, tt.timeout); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.network, err)
		}
	}
}
