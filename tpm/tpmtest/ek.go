package tpmtest

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// StartCertified makes a TPM whose manufacturer gave it endorsement keys (RSA 2048 at
// 0x81010001, ECC P-384 at 0x81010016) and certificates for them in NV (0x01c00002 and
// 0x01c00016). It returns the manufacturer's certificates, the root first.
func StartCertified(t testing.TB) (*TPM, []*x509.Certificate) {
	t.Helper()
	p := Start(t)
	return p, manufacture(t, p.State)
}

// maker are the files of the manufacturer's authority. All tests of a process share it,
// since making its keys takes longer than making a TPM.
var maker struct {
	sync.Mutex
	files map[string][]byte
}

func makerNames() []string {
	return []string{"swtpm-localca-rootca-privkey.pem", "swtpm-localca-rootca-cert.pem", "signkey.pem", "issuercert.pem", "certserial"}
}

// putMaker writes the files of the manufacturer into dir, if they exist.
func putMaker(t testing.TB, dir string) {
	t.Helper()
	for name, text := range maker.files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// keepMaker takes the manufacturer's files, including its last serial number, from dir.
func keepMaker(t testing.TB, dir string) {
	t.Helper()
	files := map[string][]byte{}
	for _, name := range makerNames() {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = text
	}
	maker.files = files
}

// manufacture makes endorsement keys and certificates in a state directory.
func manufacture(t testing.TB, state string) []*x509.Certificate {
	t.Helper()
	need(t, "swtpm_setup", "swtpm_localca", "swtpm_cert")
	dir := plainDir(t)
	maker.Lock()
	defer maker.Unlock()
	putMaker(t, dir)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("localca.conf", fmt.Sprintf("statedir = %[1]s\nsigningkey = %[1]s/signkey.pem\nissuercert = %[1]s/issuercert.pem\ncertserial = %[1]s/certserial\n", dir))
	options := write("localca.options", "--platform-manufacturer Test\n--platform-version 1.0\n--platform-model Test\n")
	tool, err := exec.LookPath("swtpm_localca")
	if err != nil {
		t.Fatal(err)
	}
	setup := write("setup.conf", fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s\ncreate_certs_tool_options = %s\n", tool, ca, options))
	args := []string{"--tpm2", "--tpmstate", state, "--create-ek-cert", "--config", setup, "--overwrite"}
	if os.Getuid() == 0 {
		args = append(args, "--runas", "root") // else it works as another user
	}
	if out, err := exec.Command("swtpm_setup", args...).CombinedOutput(); err != nil {
		t.Fatalf("swtpm_setup: %v\n%s", err, out)
	}
	keepMaker(t, dir)
	var certificates []*x509.Certificate
	for _, name := range []string{"swtpm-localca-rootca-cert.pem", "issuercert.pem"} {
		certificates = append(certificates, readCertificate(t, filepath.Join(dir, name)))
	}
	return certificates
}

// plainDir is a directory with a short path, since a Unix socket address has 108 bytes,
// and without the # of a test's name, which starts a comment in swtpm's configuration.
func plainDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func readCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// certtool writes words before the PEM block.
	block, _ := pem.Decode(text[max(0, bytes.Index(text, []byte("-----BEGIN"))):])
	if block == nil {
		t.Fatalf("%s holds no PEM block", path)
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return certificate
}
