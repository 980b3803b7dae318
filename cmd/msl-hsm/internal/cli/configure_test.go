package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// TestForeignConfiguration is in a directory with a configuration of another user, which names a
// library: it is used only if the caller names it.
func TestForeignConfiguration(t *testing.T) {
	t.Setenv("MSL_HSM_CONFIG", "")
	t.Chdir(t.TempDir())
	write(t, ".", configHere, "keystore: {uri: 'pkcs11:token=x?module-path=/evil.so'}")
	p := &program{defaults: cheap}
	if _, err := p.configure(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(configHere, 65534, 65534); err != nil {
		t.Skip(err)
	}
	_, err := p.configure()
	if exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "belongs to another user: to use it, name it with --config msl-hsm.yaml") {
		t.Error(err)
	}
	p.flags.config = configHere
	if _, err := p.configure(); err != nil {
		t.Error(err)
	}
}
