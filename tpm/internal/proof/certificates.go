package proof

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
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
// 4.1). Both are longer than 255 bytes, since they have a key and a signature.
func certificateSize(data []byte) int {
	const outer, inner, version = 4, 8, 11
	if len(data) < version || data[0] != 0x30 || data[1] != 0x82 || data[4] != 0x30 || data[5] != 0x82 ||
		!bytes.Equal(data[inner:version], []byte{0xa0, 3, 2}) {
		return 0
	}
	size := outer + int(binary.BigEndian.Uint16(data[2:]))
	if body := inner + int(binary.BigEndian.Uint16(data[6:])); size > len(data) || size > MaxPart || body > size {
		return 0
	}
	return size
}
