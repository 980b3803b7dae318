package proof

import (
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"errors"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// readExtensions reads Extensions (RFC 5280 section 4.1). Those that restrict the use of
// the certificate must be well-formed; unknown critical ones are listed as such, and the
// certificate does not verify.
func readExtensions(c *x509.Certificate, in cryptobyte.String) error {
	var list cryptobyte.String
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() {
		return errors.New("malformed extensions")
	}
	there := map[string]bool{}
	for !list.Empty() {
		x, err := readExtension(&list)
		if err != nil {
			return err
		}
		c.Extensions = append(c.Extensions, x)
		id := x.Id.String()
		if there[id] && !slices.Contains(harmless(), id) {
			return errors.New("two extensions " + id)
		}
		if there[id] {
			continue // the first one counts
		}
		there[id] = true
		known, err := useExtension(c, x)
		if err != nil {
			return err
		}
		if !known {
			c.UnhandledCriticalExtensions = append(c.UnhandledCriticalExtensions, x.Id)
		}
	}
	return nil
}

// readExtension treats any nonzero BOOLEAN as critical, as in BER.
func readExtension(list *cryptobyte.String) (x pkix.Extension, err error) {
	var one, critical, value cryptobyte.String
	var has bool
	if !list.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1ObjectIdentifier(&x.Id) ||
		!one.ReadOptionalASN1(&critical, &has, asn1.BOOLEAN) || !one.ReadASN1(&value, asn1.OCTET_STRING) {
		return x, errors.New("malformed extension")
	}
	x.Critical, x.Value = has && slices.ContainsFunc(critical, func(b byte) bool { return b != 0 }), value
	if plain := toDER(value); plain != nil {
		x.Value = plain
	}
	return x, nil
}

// useExtension reports whether all that an extension forbids will be noticed. A critical subject
// alternative name is left to the caller.
func useExtension(c *x509.Certificate, x pkix.Extension) (known bool, err error) {
	const keyUsage, basicConstraints, extKeyUsage = "2.5.29.15", "2.5.29.19", "2.5.29.37"
	const authorityInfo = "1.3.6.1.5.5.7.1.1"
	in, ok := cryptobyte.String(x.Value), true
	switch id := x.Id.String(); id {
	case keyUsage:
		ok = readKeyUsage(c, in)
	case basicConstraints:
		ok = readBasicConstraints(c, in)
	case extKeyUsage:
		ok = readExtKeyUsage(c, in)
	case authorityInfo:
		readAuthorityInfo(c, in)
	case names:
		readNames(c, x)
		return !x.Critical, nil
	case policies:
		readLimits(c, x) // without policies, it is below no authority that requires one
	case namesLimited, policiesMapped, policiesLimited, anyInhibited:
		return readLimits(c, x), nil
	default:
		return !x.Critical || slices.Contains(harmless(), id), nil
	}
	if !ok {
		return true, errors.New("malformed extension " + x.Id.String())
	}
	return true, nil
}

// harmless are extensions that neither allow nor forbid anything in a verification: key
// identifiers, alternative names of the issuer, policies (all are accepted), and where to
// find other certificates and lists.
func harmless() []string {
	return []string{"2.5.29.9", "2.5.29.14", "2.5.29.18", "2.5.29.31", "2.5.29.32", "2.5.29.35", "2.5.29.46", "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.11"}
}

// limitsOtherNames reports whether NameConstraints (RFC 5280 section 4.2.1.10) have names that
// the standard library does not compare: those in certificates of TPMs are directory names.
func limitsOtherNames(in cryptobyte.String) bool {
	const email, dns, uri, ip = 1, 2, 6, 7
	compared := []asn1.Tag{asn1.Tag(email).ContextSpecific(), asn1.Tag(dns).ContextSpecific(), asn1.Tag(uri).ContextSpecific(), asn1.Tag(ip).ContextSpecific()}
	var list, trees, one, value cryptobyte.String
	var tag asn1.Tag
	in.ReadASN1(&list, asn1.SEQUENCE)
	for list.ReadAnyASN1(&trees, &tag) {
		for trees.ReadASN1(&one, asn1.SEQUENCE) {
			if !one.ReadAnyASN1(&value, &tag) || !slices.Contains(compared, tag) {
				return true
			}
		}
	}
	return false
}

// readKeyUsage tolerates unused bits that are set.
func readKeyUsage(c *x509.Certificate, in cryptobyte.String) bool {
	var value cryptobyte.String
	if !in.ReadASN1(&value, asn1.BIT_STRING) || len(value) == 0 || value[0] > 7 {
		return false
	}
	bits := stdasn1.BitString{Bytes: value[1:], BitLength: max(0, 8*(len(value)-1)-int(value[0]))}
	for i := range 9 {
		c.KeyUsage |= x509.KeyUsage(bits.At(i) << i)
	}
	return true
}

// readAuthorityInfo looks for the location of the issuer's certificate (RFC 5280 section
// 4.2.2.1), only to show it.
func readAuthorityInfo(c *x509.Certificate, in cryptobyte.String) {
	var list, one, url cryptobyte.String
	var method stdasn1.ObjectIdentifier
	in.ReadASN1(&list, asn1.SEQUENCE)
	for list.ReadASN1(&one, asn1.SEQUENCE) {
		issuers := one.ReadASN1ObjectIdentifier(&method) && method.String() == "1.3.6.1.5.5.7.48.2"
		if issuers && one.ReadASN1(&url, asn1.Tag(6).ContextSpecific()) {
			c.IssuingCertificateURL = append(c.IssuingCertificateURL, string(url))
		}
	}
}

func readBasicConstraints(c *x509.Certificate, in cryptobyte.String) bool {
	var sequence, ca cryptobyte.String
	var has bool
	if !in.ReadASN1(&sequence, asn1.SEQUENCE) || !sequence.ReadOptionalASN1(&ca, &has, asn1.BOOLEAN) {
		return false
	}
	length := -1 // no limit
	if sequence.PeekASN1Tag(asn1.INTEGER) && (!sequence.ReadASN1Integer(&length) || length < 0) {
		return false
	}
	c.MaxPathLen, c.MaxPathLenZero = length, length == 0
	c.IsCA = c.IsCA || has && slices.ContainsFunc(ca, func(b byte) bool { return b != 0 })
	return true
}

func readExtKeyUsage(c *x509.Certificate, in cryptobyte.String) bool {
	var sequence cryptobyte.String
	if !in.ReadASN1(&sequence, asn1.SEQUENCE) {
		return false
	}
	for !sequence.Empty() {
		var id stdasn1.ObjectIdentifier
		if !sequence.ReadASN1ObjectIdentifier(&id) {
			return false
		}
		c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, id)
	}
	return true
}
