package tlsalert_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert/tlsalerttest"
)

// A provocation makes one side send an alert.
type provocation struct {
	name    string
	version uint16
	client  bool // the client sends it
	want    tlsalert.Alert
	spoil   func(testing.TB, *pair)
	mangle  func(n int, record []byte) []byte // of what the sender of the alert reads
	record  []byte                            // of the kind of its first byte, injected after the handshake
	deaf    bool                              // the other side cannot decrypt the alert, or cannot tell
}

const v12, v13 = tls.VersionTLS12, tls.VersionTLS13

var provocations = []provocation{
	{name: "old client", version: v12, want: tlsalert.ProtocolVersion, spoil: func(_ testing.TB, p *pair) { p.server.MinVersion, p.server.MaxVersion = v13, v13 }},
	{name: "old server", version: v13, want: tlsalert.ProtocolVersion, spoil: func(_ testing.TB, p *pair) { p.server.MinVersion, p.server.MaxVersion = v12, v12 }},
	{name: "no common suite", version: v12, want: tlsalert.HandshakeFailure, spoil: func(_ testing.TB, p *pair) {
		p.client.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}},
	{name: "wrong name", version: v12, client: true, want: tlsalert.BadCertificate, spoil: func(_ testing.TB, p *pair) { p.client.ServerName = "other" }},
	{name: "wrong name", version: v13, client: true, want: tlsalert.BadCertificate, spoil: func(_ testing.TB, p *pair) { p.client.ServerName = "other" }},
	{name: "unknown CA", version: v13, client: true, want: tlsalert.BadCertificate, spoil: func(_ testing.TB, p *pair) { p.client.RootCAs = x509.NewCertPool() }},
	{name: "expired", version: v13, client: true, want: tlsalert.BadCertificate, spoil: func(t testing.TB, p *pair) { p.use(certify(t, "server", expired)) }},
	{name: "corrupt certificate", version: v12, client: true, want: tlsalert.DecodeError, spoil: corrupt},
	{name: "corrupt certificate", version: v13, client: true, want: tlsalert.DecodeError, spoil: corrupt},
	{name: "certificate for key agreement", version: v13, client: true, want: tlsalert.UnsupportedCertificate, spoil: agreement},
	{name: "certificate of another key", version: v13, client: true, want: tlsalert.DecryptError, spoil: otherKey},
	{name: "certificate of another key", version: v12, client: true, want: tlsalert.IllegalParameter, spoil: otherKey, deaf: true},
	{name: "key that does not sign", version: v13, want: tlsalert.InternalError, spoil: noSignature},
	{name: "key that does not sign", version: v12, want: tlsalert.HandshakeFailure, spoil: noSignature},
	{name: "no client certificate", version: v13, want: tlsalert.CertificateRequired, spoil: demand},
	{name: "client certificate of an unknown CA", version: v13, want: tlsalert.UnknownCA, spoil: present(nil, false)},
	{name: "client certificate of an unknown CA", version: v12, want: tlsalert.UnknownCA, spoil: present(nil, false)},
	{name: "expired client certificate", version: v13, want: tlsalert.CertificateExpired, spoil: present(expired, true)},
	{name: "client certificate of a server", version: v12, want: tlsalert.BadCertificate, spoil: present(ofServer, true)},
	{name: "no common protocol", version: v12, want: tlsalert.NoApplicationProtocol, spoil: protocols},
	{name: "no common protocol", version: v13, want: tlsalert.NoApplicationProtocol, spoil: protocols},
	{name: "no certificate for the name", version: v13, want: tlsalert.UnrecognizedName, spoil: func(_ testing.TB, p *pair) { p.server.Certificates = nil }},
	{name: "rejected ECH", version: v13, client: true, want: tlsalert.ECHRequired, spoil: hidden},
	{name: "corrupt record", version: v12, want: tlsalert.BadRecordMAC, mangle: corruptRecord(2)},
	{name: "corrupt record", version: v13, client: true, want: tlsalert.BadRecordMAC, mangle: corruptRecord(2)},
	{name: "oversized record", version: v12, want: tlsalert.RecordOverflow, mangle: oversized},
	{name: "oversized record", version: v13, client: true, want: tlsalert.RecordOverflow, mangle: oversized},
	{name: "record of another version", version: v12, client: true, want: tlsalert.ProtocolVersion, mangle: otherVersion, deaf: true},
	{name: "message out of place", version: v12, client: true, want: tlsalert.UnexpectedMessage, mangle: change(0, 5, 20), deaf: true},
	{name: "message out of place", version: v13, want: tlsalert.UnexpectedMessage, mangle: change(0, 5, 20)},
	{name: "message that cannot be decoded", version: v12, want: tlsalert.DecodeError, mangle: change(0, 43, 255)},
	{name: "compression", version: v12, client: true, want: tlsalert.IllegalParameter, mangle: compressed},
	{name: "extension that was not offered", version: v13, client: true, want: tlsalert.UnsupportedExtension, mangle: extended, deaf: true},
	{name: "missing extension", version: v13, want: tlsalert.MissingExtension, mangle: without(13)},
	{name: "bad Finished", version: v12, want: tlsalert.HandshakeFailure, mangle: without(23)},
	{name: "needless fallback", version: v12, want: tlsalert.InappropriateFallback, spoil: func(_ testing.TB, p *pair) {
		p.server.MaxVersion = v13
		p.client.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}, mangle: fallback},
	{name: "renegotiation", version: v12, client: true, want: tlsalert.NoRenegotiation, record: []byte{22, 0, 0, 0, 0}, deaf: true},
	{name: "unknown record", version: v13, want: tlsalert.UnexpectedMessage, record: []byte{99, 1}},
}

// goSends lists the alerts that Go 1.26 can send, except close_notify.
var goSends = []tlsalert.Alert{10, 20, 22, 40, 42, 43, 45, 47, 48, 50, 51, 70, 80, 86, 100, 109, 110, 112, 116, 120, 121}

func TestSent(t *testing.T) {
	provoked := map[tlsalert.Alert]bool{}
	for _, test := range provocations {
		t.Run(tls.VersionName(test.version)+"/"+test.name, func(t *testing.T) {
			provoked[test.want] = true
			p := newPair(t, test.version)
			if test.spoil != nil {
				test.spoil(t, &p)
			}
			w := &tlsalerttest.Wire{Client: test.client, Mangle: test.mangle, At: tlsalerttest.AfterHandshake}
			sender, other := p.connect(t, w, func() {
				if test.record == nil {
					w.Close()
					return
				}
				if err := w.InjectRecord(test.record[0], test.record[1:], 0); err != nil {
					t.Error(err)
				}
			})
			find, findOther := tlsalert.From, tlsalert.FromServer
			if !test.client {
				sender, other, find, findOther = other, sender, findOther, find
			}
			if a, origin, ok := find(sender); a != test.want || origin != tlsalert.Sent || !ok {
				// The alerts of 1.2 that differ from those of 1.3 are identified on the wire.
				if test.name != "certificate of another key" {
					t.Errorf("sender: found %v %v (%v) in %q", origin, a, ok, sender)
				}
			}
			if a, origin, ok := findOther(other); !test.deaf && (a != test.want || origin != tlsalert.Received || !ok) {
				t.Errorf("receiver: found %v %v (%v) in %q", origin, a, ok, other)
			}
		})
	}
	for _, a := range goSends {
		if !provoked[a] {
			t.Errorf("%v was not provoked", a)
		}
	}
}

func (p *pair) use(c tls.Certificate) {
	p.server.Certificates = []tls.Certificate{c}
	p.client.RootCAs = pool(c)
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func ofServer(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

func corrupt(_ testing.TB, p *pair) {
	p.server.Certificates[0].Certificate = [][]byte{bytes.Repeat([]byte{0x30}, 100)}
}

// agreement makes a certificate whose key is for X25519: that of an Ed25519 key with
// another object identifier (RFC 8410 section 3), signed again.
func agreement(t testing.TB, p *pair) {
	ca := p.server.Certificates[0]
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{"server"}, NotBefore: ca.Leaf.NotBefore, NotAfter: ca.Leaf.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Leaf, public, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		t.Fatal(err)
	}
	c.TBS = asn1.RawValue{FullBytes: bytes.Replace(c.TBS.FullBytes, []byte{6, 3, 43, 101, 112}, []byte{6, 3, 43, 101, 110}, 1)}
	digest := sha256.Sum256(c.TBS.FullBytes)
	signature, err := ca.PrivateKey.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	c.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	if der, err = asn1.Marshal(c); err != nil {
		t.Fatal(err)
	}
	p.server.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: ca.PrivateKey}}
}

func otherKey(t testing.TB, p *pair) {
	p.server.Certificates[0].PrivateKey = certify(t, "server", nil).PrivateKey
}

type unable struct{ crypto.Signer }

func (unable) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("no device")
}

func noSignature(_ testing.TB, p *pair) {
	p.server.Certificates[0].PrivateKey = unable{p.server.Certificates[0].PrivateKey.(crypto.Signer)}
}

func demand(_ testing.TB, p *pair) {
	p.server.ClientAuth, p.server.ClientCAs = tls.RequireAndVerifyClientCert, pool(p.server.Certificates[0])
}

func present(change func(*x509.Certificate), known bool) func(testing.TB, *pair) {
	return func(t testing.TB, p *pair) {
		demand(t, p)
		own := certify(t, "client", change)
		p.client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
		if known {
			p.server.ClientCAs.AddCert(own.Leaf)
		}
	}
}

func protocols(_ testing.TB, p *pair) {
	p.client.NextProtos, p.server.NextProtos = []string{"remote error: tls: bad certificate"}, []string{"msl"}
}

// hidden makes the client ask for an encrypted hello, which the server does not know.
func hidden(t testing.TB, p *pair) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.use(certify(t, "public.example", nil))
	config := []byte{1, 0, 0x20} // identifier, DHKEM(X25519, HKDF-SHA256)
	config = append(append(config, 0, 32), key.PublicKey().Bytes()...)
	config = append(config, 0, 4, 0, 1, 0, 1, 32)                    // HKDF-SHA256, AES-128-GCM, name length
	config = append(append(config, 14), "public.example\x00\x00"...) // public name, no extensions
	config = append([]byte{0xfe, 0x0d, 0, byte(len(config))}, config...)
	p.client.EncryptedClientHelloConfigList = append([]byte{0, byte(len(config))}, config...)
}

func change(nth, offset int, value byte) func(int, []byte) []byte {
	return func(n int, record []byte) []byte {
		if n == nth && len(record) > offset {
			record[offset] = value
		}
		return record
	}
}

// corruptRecord spoils every record from the nth on that is long enough to be
// encrypted.
func corruptRecord(nth int) func(int, []byte) []byte {
	return func(n int, record []byte) []byte {
		if n >= nth && len(record) > 20 {
			record[len(record)-1] ^= 1
		}
		return record
	}
}

func oversized(n int, record []byte) []byte {
	if n < 2 {
		return record
	}
	return append(record[:3], append([]byte{0x50, 0}, make([]byte, 0x5000)...)...)
}

func otherVersion(n int, record []byte) []byte {
	if n > 0 {
		record[2] = 1
	}
	return record
}

// compressed lets the server hello name a compression.
func compressed(n int, record []byte) []byte {
	if n == 0 {
		record[44+int(record[43])+2] = 1
	}
	return record
}

// extended adds an empty session ticket extension to a server hello.
func extended(n int, record []byte) []byte {
	if n != 0 {
		return record
	}
	at := 44 + int(record[43]) + 3
	add := func(at int) {
		binary.BigEndian.PutUint16(record[at:], binary.BigEndian.Uint16(record[at:])+4)
	}
	add(3)
	add(7)
	add(at)
	return append(record, 0, 35, 0, 0)
}

// without turns an extension of the client hello into one that nobody knows.
func without(extension uint16) func(int, []byte) []byte {
	return func(n int, record []byte) []byte {
		if n != 0 {
			return record
		}
		at := 44 + int(record[43])
		at += 2 + int(binary.BigEndian.Uint16(record[at:]))
		at += 1 + int(record[at]) + 2
		for at < len(record) {
			if binary.BigEndian.Uint16(record[at:]) == extension {
				binary.BigEndian.PutUint16(record[at:], 0xfafb)
			}
			at += 4 + int(binary.BigEndian.Uint16(record[at+2:]))
		}
		return record
	}
}

// fallback replaces the second cipher suite with TLS_FALLBACK_SCSV.
func fallback(n int, record []byte) []byte {
	if n == 0 {
		binary.BigEndian.PutUint16(record[44+int(record[43])+4:], tls.TLS_FALLBACK_SCSV)
	}
	return record
}
