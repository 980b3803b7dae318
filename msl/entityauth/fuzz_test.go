package entityauth

import (
	"bytes"
	"crypto/elliptic"
	"encoding/pem"
	"testing"
)

// A revocation list that parses was signed by its issuer.
func FuzzParseCRL(f *testing.F) {
	root := issue(f, nil, "root", ecKey(f, elliptic.P256()), asCA)
	der := root.crl(nil, root)
	f.Add(der)
	f.Add(root.crl(nil))
	f.Add(root.endless())
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCRL(data, root.cert)
		if err != nil {
			return
		}
		if c.nextUpdate.IsZero() || !bytes.Equal(c.issuer.Raw, root.cert.Raw) {
			t.Errorf("%x is a list of %v until %v", data, c.issuer, c.nextUpdate)
		}
	})
}
