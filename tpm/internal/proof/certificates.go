package proof

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"slices"
	"strings"
)

// Certificates returns the certificates in the contents of NV indices or of a file, in
// their order. Each index is read on its own, and all of them as one, since a certificate
// may be split across indices (TCG EK Credential Profile, section 2.2.1.5.2). Headers
// before a certificate, such as that of TPM 1.2 (TCG PC Client Specific Implementation
// Specification 1.2, section 7.4.5), and padding after it are ignored. Text is PEM.
func Certificates(contents ...[]byte) (found [][]byte) {
	if len(contents) > 1 {
		contents = append(contents, bytes.Join(contents, nil))
	}
	seen := map[string]bool{}
	for _, data := range contents {
		for _, der := range split(fromPEM(data)) {
			if !seen[string(der)] {
				seen[string(der)] = true
				found = append(found, der)
			}
		}
	}
	return found
}

// OwnFirst puts the certificate of an EK of a kind, or of any kind for "", before those that
// were stored with it: some makers, and people who put files together, have the issuer's first,
// or those of several EKs. If none looks like it the order stays.
func OwnFirst(list [][]byte, kind EKKind) [][]byte {
	own := slices.IndexFunc(list, func(der []byte) bool {
		c, err := ParseCertificate(der)
		if err != nil || c.IsCA {
			return false
		}
		of := KindOf(c.PublicKey)
		return kind == "" || of != "" && strings.HasPrefix(string(kind), string(of))
	})
	if own < 0 && kind != "" {
		return OwnFirst(list, "")
	}
	if own <= 0 {
		return list
	}
	return slices.Concat(list[own:own+1], list[:own], list[own+1:])
}

// fromPEM returns the certificates of a text, or data if it is none.
func fromPEM(data []byte) []byte {
	var der []byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
	if der == nil {
		return data
	}
	return der
}

// split finds what begins as a certificate does and is complete.
func split(data []byte) (found [][]byte) {
	for len(data) > 0 {
		size := certificateSize(data)
		if size == 0 {
			data = data[1:]
			continue
		}
		found, data = append(found, data[:size:size]), data[size:]
	}
	return found
}

// certificateSize returns the size of the certificate of version 3 that data begins with,
// or 0: a SEQUENCE of a SEQUENCE whose first element is [0] INTEGER (RFC 5280 section
// 4.1).
func certificateSize(data []byte) int {
	outer, size := sequenceSize(data)
	if size == 0 || size > len(data) || size > MaxPart {
		return 0
	}
	body := data[outer:size]
	inner, tbs := sequenceSize(body)
	if tbs == 0 || tbs > len(body) || !bytes.HasPrefix(body[inner:], []byte{0xa0, 3, 2}) {
		return 0
	}
	return size
}

// sequenceSize returns the sizes of the header and of all of a SEQUENCE of 128 to 65535
// bytes, or 0.
func sequenceSize(data []byte) (header, size int) {
	switch {
	case len(data) < 4 || data[0] != 0x30:
	case data[1] == 0x81:
		return 3, 3 + int(data[2])
	case data[1] == 0x82:
		return 4, 4 + int(binary.BigEndian.Uint16(data[2:]))
	}
	return 0, 0
}
