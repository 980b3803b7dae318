package admin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestEtcdCA has a file of trusted certificates with a damaged block, and one without any.
func TestEtcdCA(t *testing.T) {
	for text, want := range map[string]string{
		"-----BEGIN CERTIFICATE-----\nMIIB": "line 1: a damaged block of PEM",
		"no certificate\n":                  "has no PEM block CERTIFICATE",
	} {
		ca := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(ca, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := etcdTLS(&config.State{CA: ca})
		if err == nil || exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "server.state.ca") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
