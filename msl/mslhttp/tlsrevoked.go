package mslhttp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// An ownAlert replaces the alert that crypto/tls would send.
type ownAlert struct {
	alert  tlsalert.Alert
	record []byte // encrypted; nil if alerts are in clear
}

// A clientCheck checks the certificate of one client after crypto/tls has verified it.
// For a refusal crypto/tls always sends bad_certificate. Up to TLS 1.2 that alert is in
// clear, and is replaced in transit; in TLS 1.3 this package encrypts its own, with the
// secret that crypto/tls writes to a key log.
type clientCheck struct {
	revoked func(chain []*x509.Certificate) error
	wire    *tlsWire
	session *ticketed
	logged  io.Writer // also gets the key log; may be nil
	secret  []byte    // for the application data that this side sends
}

func (c *clientCheck) watch(config *tls.Config) {
	config.VerifyConnection = c.verify
	if config.KeyLogWriter = io.Writer(c); c.logged != nil {
		config.KeyLogWriter = io.MultiWriter(c, c.logged)
	}
}

// Write parses a line of a key log: the kind of a secret, the connection, and the secret.
func (c *clientCheck) Write(line []byte) (int, error) {
	fields := bytes.Fields(line)
	if len(fields) == 3 && string(fields[0]) == "SERVER_TRAFFIC_SECRET_0" {
		c.secret = make([]byte, hex.DecodedLen(len(fields[2])))
		if _, err := hex.Decode(c.secret, fields[2]); err != nil {
			return 0, err
		}
	}
	return len(line), nil
}

// verify checks each chain; one accepted chain is enough.
func (c *clientCheck) verify(cs tls.ConnectionState) error {
	defer clear(c.secret)
	refused := errors.New("mslhttp: the client's certificate identifies nobody")
	for _, chain := range cs.VerifiedChains {
		err := c.revoked(chain)
		if err == nil {
			return nil
		}
		refused = fmt.Errorf("mslhttp: the client's certificate: %w", err)
		if errors.Is(err, entityauth.ErrRevoked) {
			break
		}
	}
	return c.refuse(cs, refused)
}

// refuse prepares the alert.
func (c *clientCheck) refuse(cs tls.ConnectionState, cause error) error {
	own := &ownAlert{alert: tlsalert.CertificateUnknown}
	if errors.Is(cause, entityauth.ErrRevoked) {
		own.alert = tlsalert.CertificateRevoked
	}
	if cs.Version >= tls.VersionTLS13 {
		var err error
		if own.record, err = sealAlert(cs.CipherSuite, c.secret, c.session.tickets(), own.alert); err != nil {
			return err // crypto/tls sends its own alert
		}
	}
	c.wire.instead = own
	return &tlsalert.Error{Alert: own.alert, Origin: tlsalert.Sent, Err: cause}
}

// sealAlert makes a TLS 1.3 record with a fatal alert (RFC 8446 sections 5.2, 5.3
// and 7.3). sequence is the number of records already sent under the secret.
func sealAlert(suite uint16, secret []byte, sequence uint64, a tlsalert.Alert) ([]byte, error) {
	aead, iv, err := trafficKeys(suite, secret)
	if err != nil {
		return nil, err
	}
	nonce := binary.BigEndian.AppendUint64(make([]byte, len(iv)-8, len(iv)), sequence)
	for i := range nonce {
		nonce[i] ^= iv[i]
	}
	header := []byte{recordApplication, 3, 3, 0, alert13}
	return aead.Seal(header, nonce, []byte{tlsalert.FatalByte, byte(a), recordAlert}, header), nil
}

func trafficKeys(suite uint16, secret []byte) (cipher.AEAD, []byte, error) {
	size, sum := 32, sha256.New
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		size = 16
	case tls.TLS_AES_256_GCM_SHA384:
		sum = sha512.New384
	}
	key, err := expandLabel(sum, secret, "key", size)
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	iv, err := expandLabel(sum, secret, "iv", 12)
	if err != nil {
		return nil, nil, err
	}
	if suite == tls.TLS_CHACHA20_POLY1305_SHA256 {
		aead, err := chacha20poly1305.New(key)
		return aead, iv, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, iv, err
}

// expandLabel is HKDF-Expand-Label without a context (RFC 8446 section 7.1).
func expandLabel(sum func() hash.Hash, secret []byte, label string, size int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{0, byte(size), byte(len(label))}, label...)
	return hkdf.Expand(sum, secret, string(append(info, 0)), size)
}
