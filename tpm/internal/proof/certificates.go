package proof

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strings"
)

// Certificates returns the certificates in the contents of NV indices or of a file, in
// order. Each index is read on its own, and then all of them together, since a
// certificate may be split across indices (TCG EK Credential Profile).
// Headers before a certificate, such as that of TPM 1.2 (TCG PC Client Specific
// Implementation Specification 1.2), and padding after it are ignored.
// Text is PEM, also of PKCS #7, which contains certificates (RFC 7468 section 8).
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

// OwnFirst moves the certificate of an EK of a kind, or of any kind for "", before those
// stored with it: some manufacturers, and people who assemble files, put the issuer's
// first, or include those of several EKs. If none looks like it, the order is unchanged.
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

// fromPEM returns the certificates in a PEM text, or data if it is not PEM.
func fromPEM(data []byte) []byte {
	var der []byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch block.Type {
		case "CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE", "PKCS7", "CMS":
			der = append(der, block.Bytes...)
		}
	}
	if der == nil {
		return data
	}
	return der
}

// split finds what begins like a certificate and is complete.
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

// certificateSize returns the size of the certificate at the start of data, or 0. A
// certificate of version 3 begins with [0], one without a version with its serial number.
func certificateSize(data []byte) int {
	parts := certificateParts(data)
	if parts == nil {
		return 0
	}
	body, _, ok := content(parts[0], 1)
	if _, size := extent(data, 0); ok && len(body) > 0 && (body[0] == 0xa0 || body[0] == 2) && size <= MaxPart {
		return size
	}
	return 0
}

// certificateParts returns the parts of the certificate at the start of data (RFC 5280
// section 4.1): a SEQUENCE, another one and a BIT STRING, and padding if its length is
// that of an NV index. The result is nil if there is no certificate.
func certificateParts(data []byte) (parts [][]byte) {
	if len(data) == 0 || data[0] != 0x30 {
		return nil
	}
	in, _, ok := content(data, 0)
	for _, tag := range []byte{0x30, 0x30, 3} {
		if !ok || len(in) == 0 || in[0] != tag && in[0] != tag|0x20 {
			return nil
		}
		var rest []byte
		_, rest, ok = content(in, 1)
		parts, in = append(parts, in[:len(in)-len(rest)]), rest
	}
	if !ok || len(bytes.Trim(in, "\x00")) > 0 && len(bytes.Trim(in, "\xff")) > 0 {
		return nil
	}
	return parts
}
