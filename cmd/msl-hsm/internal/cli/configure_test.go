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

// TestForeignLink is in a directory with a link of another user to a configuration of this one, in
// which relative paths would be paths in that directory.
func TestForeignLink(t *testing.T) {
	t.Setenv("MSL_HSM_CONFIG", "")
	own := t.TempDir()
	write(t, own, configHere, "keystore: {softhsm: ., uri: 'pkcs11:token=dev'}")
	t.Chdir(t.TempDir())
	if err := os.Symlink(own+"/"+configHere, configHere); err != nil {
		t.Fatal(err)
	}
	p := &program{defaults: cheap}
	if _, err := p.configure(); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(configHere, 65534, 65534); err != nil {
		t.Skip(err)
	}
	if _, err := p.configure(); exit.Code(err) != exit.Usage || !strings.Contains(err.Error(), "read msl-hsm.yaml: it belongs to another user: to use it") {
		t.Error(err)
	}
}
