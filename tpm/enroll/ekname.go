package enroll

import (
	"encoding/asn1"
	"encoding/hex"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// readName looks in GeneralNames (RFC 5280 section 4.2.1.6) for the attributes of a TPM
// in a directory name, and reports whether it found one. They are in one set or several,
// and manufacturers wrote them with any string type, in any character set.
func (e *EKCertificate) readName(der []byte) bool {
	var names cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&names, tags.SEQUENCE) {
		return false
	}
	found := false
	directoryName := tags.Tag(4).ContextSpecific()
	for !names.Empty() {
		var name cryptobyte.String
		var tag tags.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return found
		}
		if tag&^0x20 == directoryName && e.readAttributes(name, 0) {
			found = true
		}
	}
	return found
}

// readAttributes looks for attributes in what may be a Name, its RDNSequence, a set in that,
// or an attribute.
func (e *EKCertificate) readAttributes(in cryptobyte.String, depth int) (found bool) {
	const deepest = 4 // Name, RDNSequence, RelativeDistinguishedName, AttributeTypeAndValue
	if in.PeekASN1Tag(tags.OBJECT_IDENTIFIER) {
		return e.readAttribute(in)
	}
	for depth < deepest && !in.Empty() {
		var inner cryptobyte.String
		var tag tags.Tag
		if !in.ReadAnyASN1(&inner, &tag) {
			return found
		}
		if (tag == tags.SEQUENCE || tag == tags.SET) && e.readAttributes(inner, depth+1) {
			found = true
		}
	}
	return found
}

// readAttribute reads an attribute of a TPM (TCG EK Credential Profile, section 3.1.2).
func (e *EKCertificate) readAttribute(in cryptobyte.String) bool {
	var oid asn1.ObjectIdentifier
	var value cryptobyte.String
	var tag tags.Tag
	if !in.ReadASN1ObjectIdentifier(&oid) || !in.ReadAnyASN1(&value, &tag) {
		return false
	}
	text := proof.Shorten(proof.Text(tag, value))
	switch oid.String() {
	case "2.23.133.2.1":
		e.Manufacturer = vendorCode(text)
	case "2.23.133.2.2":
		e.Model = text
	case "2.23.133.2.3":
		e.Firmware = text
	default:
		return false
	}
	return true
}

// vendorCode spells a vendor code as the profile does, with uppercase digits after "id:".
// Other text stays as it is.
func vendorCode(text string) string {
	digits := strings.ToUpper(text)
	for _, prefix := range []string{"ID:", "0X"} {
		digits = strings.TrimPrefix(digits, prefix)
	}
	if code, err := hex.DecodeString(digits); err == nil && len(code) == 4 {
		return "id:" + digits
	}
	return text
}
