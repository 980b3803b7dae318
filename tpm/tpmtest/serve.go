package tpmtest

import (
	"crypto/x509"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// Serve runs a TPM for other processes and returns its tpm: URI. It serves one
// connection at a time, and stays switched on between them. [Tools] is its name for
// tpm2-tools.
func Serve(t testing.TB) string {
	t.Helper()
	need(t, "swtpm")
	return serveUnix(t, plainDir(t))
}

// ServeCertified is Serve with endorsement keys and certificates, see [StartCertified].
// It returns the manufacturer's certificates too, the root first.
func ServeCertified(t testing.TB) (string, []*x509.Certificate) {
	t.Helper()
	need(t, "swtpm")
	dir := plainDir(t)
	certificates := manufacture(t, dir)
	return serveUnix(t, dir), certificates
}

func serveUnix(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "sock")
	serve(t, dir, "unix", path, "type=unixio,path="+path, "--ctrl", "type=unixio,path="+path+".ctrl")
	return unixURI(path)
}

// Tools returns the name of a TPM of [Serve] for tpm2-tools, for the environment variable
// TPM2TOOLS_TCTI.
func Tools(uri string) string { return "swtpm:path=" + Socket(uri) }

// Socket returns the path of the socket of a TPM of [Serve], [ServeCertified] or [ServeQuirky].
func Socket(uri string) string {
	path, err := url.PathUnescape(strings.TrimPrefix(uri, "tpm:?unix="))
	if err != nil {
		panic(err)
	}
	return path
}

func unixURI(path string) string {
	return "tpm:?unix=" + strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(path))
}

// ServeQuirky runs a TPM for other processes behind a quirk, and returns its tpm: URI. It
// serves one connection at a time, and is switched off and on between them.
func ServeQuirky(t testing.TB, p *TPM, quirk Quirk) string {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(plainDir(t), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { l.Close(); p.Kill(); <-ended })
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := serveQuirky(p, quirk, conn); err != nil {
				t.Error(err)
			}
			conn.Close()
		}
	}()
	return unixURI(l.Addr().String())
}

// serveQuirky passes commands through a quirk until there are no more.
func serveQuirky(p *TPM, quirk Quirk, conn io.ReadWriter) error {
	chip, err := p.Dial()
	if err != nil {
		return err
	}
	defer chip.Close()
	send := func(command []byte) ([]byte, error) { return Exchange(chip, command) }
	for {
		command, err := readMessage(conn)
		if err != nil {
			return nil // the user went away
		}
		answer, err := quirk(command, send)
		if err != nil {
			return nil // the TPM was switched off
		}
		if _, err := conn.Write(answer); err != nil {
			return nil
		}
	}
}

// ClearServed sends TPM2_Clear to a TPM of [Serve], which must not be open elsewhere.
func ClearServed(t testing.TB, uri string) {
	t.Helper()
	conn, err := net.Dial("unix", Socket(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sendClear(t, conn)
}

// ServeTCP is Serve on a port of the loopback interface.
func ServeTCP(t testing.TB) string {
	t.Helper()
	need(t, "swtpm")
	address := porttest.Address(t)
	host, port, _ := strings.Cut(address, ":")
	serve(t, t.TempDir(), "tcp", address, "type=tcp,bindaddr="+host+",port="+port)
	return "tpm:?tcp=" + address
}

// serve starts swtpm and waits until it accepts connections.
func serve(t testing.TB, state, network, address, server string, more ...string) {
	t.Helper()
	p, err := run(state, nil, append([]string{"--server", server}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
			return
		}
	}
	t.Fatalf("swtpm does not answer at %s", address)
}
