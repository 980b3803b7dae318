package tpmtest_test

import (
	"net"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

func random(t *testing.T, p *tpmtest.TPM) transport.TPM {
	t.Helper()
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	tpm := transport.FromReadWriter(conn)
	if _, err := (tpm2.GetRandom{BytesRequested: 8}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	return tpm
}

func TestStart(t *testing.T) {
	p := tpmtest.Start(t)
	random(t, p)
	p.Kill()
	random(t, p)
	p.Kill()
	p.Clear(t)
	p.Replace(t)
	random(t, p)
}

func TestStartCertified(t *testing.T) {
	p, certificates := tpmtest.StartCertified(t)
	tpm := random(t, p)
	public, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := public.OutPublic.Contents(); err != nil {
		t.Error(err)
	}
	if err := certificates[1].CheckSignatureFrom(certificates[0]); err != nil {
		t.Error(err)
	}
}

// TestServeCertified has a name that is a comment in the configuration of swtpm.
func TestServeCertified(t *testing.T) {
	t.Run("#", func(t *testing.T) {
		uri, certificates := tpmtest.ServeCertified(t)
		path := tpmtest.Socket(uri)
		for range 2 { // it stays on between connections
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010001)}.Execute(transport.FromReadWriter(conn))
			if conn.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if len(certificates) != 2 || certificates[1].CheckSignatureFrom(certificates[0]) != nil {
			t.Errorf("%d certificates", len(certificates))
		}
	})
}
