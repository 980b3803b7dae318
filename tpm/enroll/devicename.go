package enroll

import (
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// attests reports whether the certificate of a device says that its key is restricted to what
// the TPM itself made: by the extended key usage tcg-kp-AIKCertificate, or as
// tcg-cap-verifiedTPMRestricted, which is a certificate policy (TCG TPM 2.0 Keys for Device
// Identity and Attestation), but which some makers write as an extended key usage.
func (e *EKCertificate) attests() bool {
	said := slices.Clone(e.UnknownExtKeyUsage)
	for _, x := range e.Extensions {
		if x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 32}) {
			said = append(said, policies(x.Value)...)
		}
	}
	return slices.ContainsFunc(said, asn1.ObjectIdentifier{2, 23, 133, 8, 3}.Equal) ||
		slices.ContainsFunc(said, asn1.ObjectIdentifier{2, 23, 133, 11, 1, 3}.Equal)
}

// policies reads CertificatePolicies (RFC 5280 section 4.2.1.4) without their qualifiers.
func policies(der cryptobyte.String) (list []asn1.ObjectIdentifier) {
	var all, one cryptobyte.String
	if !der.ReadASN1(&all, tags.SEQUENCE) {
		return nil
	}
	for all.ReadASN1(&one, tags.SEQUENCE) {
		var id asn1.ObjectIdentifier
		if one.ReadASN1ObjectIdentifier(&id) {
			list = append(list, id)
		}
	}
	return list
}

// chip returns how the certificate of a device names its TPM: with a HardwareModuleName (RFC
// 4108 section 5) for TPM 2.0 in its subject alternative name. It is "" if there is none.
func (e *EKCertificate) chip() string {
	for _, x := range e.Extensions {
		if !x.Id.Equal(subjectAltName()) {
			continue
		}
		var names, name cryptobyte.String
		in := cryptobyte.String(x.Value)
		in.ReadASN1(&names, tags.SEQUENCE)
		for tag := tags.Tag(0); names.ReadAnyASN1(&name, &tag); {
			if serial, ok := hardwareSerial(name); ok && tag == tags.Tag(0).ContextSpecific().Constructed() {
				return serial
			}
		}
	}
	return ""
}

// hardwareSerial reads an OtherName. The serial number of its HardwareModuleName is an OCTET
// STRING, also with the tag [4], as some programs write it. Bytes that are not text are
// returned as hexadecimal digits.
func hardwareSerial(in cryptobyte.String) (serial string, ok bool) {
	var kind, hardware asn1.ObjectIdentifier
	var value, module, number cryptobyte.String
	var tag tags.Tag
	ok = in.ReadASN1ObjectIdentifier(&kind) && in.ReadASN1(&value, tags.Tag(0).ContextSpecific().Constructed()) &&
		value.ReadASN1(&module, tags.SEQUENCE) && module.ReadASN1ObjectIdentifier(&hardware) && module.ReadAnyASN1(&number, &tag) &&
		(tag == tags.OCTET_STRING || tag == tags.Tag(4).ContextSpecific()) &&
		kind.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}) && hardware.Equal(asn1.ObjectIdentifier{2, 23, 133, 1, 2})
	if slices.ContainsFunc(number, func(b byte) bool { return b < ' ' || b > '~' }) {
		return proof.Shorten(hex.EncodeToString(number)), ok
	}
	return proof.Shorten(string(number)), ok
}

// disagreement says that the certificate of a device's maker names another EK certificate than
// the device sent, or returns "". The name consists of the TPM's manufacturer, the key
// identifier of the authority of the EK certificate, and its serial number (TCG TPM 2.0 Keys
// for Device Identity and Attestation). That decides nothing: a TPM may have several EK
// certificates, and what counts is that the maker's key is in the TPM.
func (c *claim) disagreement() string {
	named := strings.Split(c.device.chip, ":")
	if c.ek.Certificate == nil || c.device.chain == nil || len(named) != 3 || c.ek.named(named[1], named[2]) {
		return ""
	}
	return fmt.Sprintf("; the certificate of the device's maker names the TPM %s, but the EK certificate has serial number %x", c.device.chip, c.ek.SerialNumber)
}

// named reports whether a certificate has a serial number, in hexadecimal or decimal digits,
// and is by the authority with a key identifier, if both are known.
func (e *EKCertificate) named(authority, serial string) bool {
	if id := hex.EncodeToString(e.AuthorityKeyId); id != "" && authority != "" && !strings.EqualFold(id, authority) {
		return false
	}
	digits := strings.ToLower(strings.TrimLeft(serial, "0"))
	return serial == "" || digits == fmt.Sprintf("%x", e.SerialNumber) || serial == e.SerialNumber.String()
}
