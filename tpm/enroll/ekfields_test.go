package enroll

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
)

// The object identifiers of extensions, and the one of certificates for EKs, in DER.
const (
	keyUsageOID    = "\x06\x03\x55\x1d\x0f"
	altNameOID     = "\x06\x03\x55\x1d\x11"
	policiesOID    = "\x06\x03\x55\x1d\x20"
	constraintsOID = "\x06\x03\x55\x1d\x24"
	listsOID       = "\x06\x03\x55\x1d\x1f"
	issuerOID      = "\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x01"
	authorityOID   = "\x06\x03\x55\x1d\x23"
	extUsageOID    = "\x06\x03\x55\x1d\x25"
	ekUsageOID     = "\x06\x05\x67\x81\x05\x08\x01"
)

// field is an extension with a value in DER, critical or not.
func field(oid string, critical bool, value ...byte) []byte {
	var is []byte
	if critical {
		is = []byte{1, 1, 0xff}
	}
	return strict(0x30, slices.Concat([]byte(oid), is, strict(4, value)))
}

// access says where the certificate of the issuer is.
func access(location []byte) []byte {
	return strict(0x30, strict(0x30, slices.Concat([]byte("\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02"), location)))
}

// tpmAttributes are the sets of a name that describe a TPM.
func tpmAttributes() []byte {
	inner := attributes("id:54534554", 12, false)
	return inner[6:] // without GeneralNames, GeneralName and Name
}

// TestFields reads certificates whose extensions and names say in another way, or in vain, that
// they are for an EK.
func TestFields(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	rdn, server := strict(0x30, tpmAttributes()), strict(0x82, []byte("tpm.example"))
	names := func(all ...[]byte) []byte { return strict(0x30, slices.Concat(all...)) }
	for name, tt := range map[string]struct {
		change func(*parts)
		unused string // why, or nothing if it admits the device
	}{
		"any usage":                 {func(p *parts) { p.extra = field(extUsageOID, false, 0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0) }, ""},
		"any usage, odd":            {func(p *parts) { withExtension(p, []byte(extUsageOID), 0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0) }, ""},
		"any usage, and no TPM":     {func(p *parts) { p.name, p.extra = nil, field(extUsageOID, true, 0x30, 6, 6, 4, 0x55, 0x1d, 0x25, 0) }, "does not say that it is of a TPM"},
		"usage of an AK":            {func(p *parts) { p.extra = field(extUsageOID, false, 0x30, 7, 6, 5, 0x67, 0x81, 5, 8, 3) }, "usage is not that of an EK"},
		"no usage listed":           {func(p *parts) { p.extra = field(extUsageOID, false, 0x30, 0) }, ""},
		"usage, and no name":        {func(p *parts) { p.name, p.extra = nil, field(extUsageOID, false, strict(0x30, []byte(ekUsageOID))...) }, ""},
		"neither":                   {func(p *parts) { p.name = nil }, "does not say that it is of a TPM"},
		"for data":                  {func(p *parts) { p.extra = field(keyUsageOID, true, 3, 2, 4, 0x10) }, "key usage is not that of an EK"},
		"for everything":            {func(p *parts) { p.extra = field(keyUsageOID, true, 3, 3, 7, 0xff, 0x80) }, ""},
		"TPM in the subject":        {func(p *parts) { p.name, p.subject = nil, rdn }, ""},
		"TPM there, and another":    {func(p *parts) { p.name, p.subject = names(server), rdn }, ""},
		"after another name":        {func(p *parts) { p.name = names(server, strict(0xa4, rdn)) }, ""},
		"after an empty one":        {func(p *parts) { p.name = names(strict(0xa4, strict(0x30, nil)), strict(0xa4, rdn)) }, ""},
		"after one of another kind": {func(p *parts) { p.name = names([]byte{0xa0, 9, 6, 3, 0x2a, 3, 4, 0xa0, 2, 5, 0}, strict(0xa4, rdn)) }, ""},
		"after an address of three": {func(p *parts) { p.name = names(strict(0x87, []byte{1, 2, 3}), strict(0xa4, rdn)) }, ""},
		"not wrapped":               {func(p *parts) { p.name = names(strict(0xa4, tpmAttributes())) }, ""},
		"two alternative names":     {func(p *parts) { p.extra = field(altNameOID, false, names(strict(0xa4, rdn))...) }, "two extensions"},
		"the policy of the TCG":     {func(p *parts) { p.extra = field(policiesOID, true, strict(0x30, strict(0x30, []byte(ekUsageOID)))...) }, ""},
		"policies that are none":    {func(p *parts) { p.extra = field(policiesOID, true, 5, 0) }, ""},
		"a policy is required":      {func(p *parts) { p.extra = field(constraintsOID, true, 0x30, 3, 0x80, 1, 0) }, "chains with invalid policies"},
		"issuer by its serial":      {func(p *parts) { p.extra = field(authorityOID, false, 0x30, 3, 0x82, 1, 1) }, ""},
		"issuer by another key":     {func(p *parts) { p.extra = field(authorityOID, false, 0x30, 4, 0x80, 2, 9, 9) }, ""},
		"until before it begins":    {func(p *parts) { p.validity = times("490101000000Z", utcTime, "200101000000Z", utcTime) }, "not yet valid"},
		"from the year 0, for ever": {func(p *parts) {
			p.validity = times("00000101000000Z", generalizedTime, "99991231235959Z", generalizedTime)
		}, ""},
		"until a day that is none": {func(p *parts) { p.validity = times("200101000000Z", utcTime, "490230000000Z", utcTime) }, "malformed validity"},
		"key of an even exponent":  {func(p *parts) { k := f.ek.PublicKey; k.E = 65536; p.key = oaep(&k) }, "malformed RSA key"},
		"key of the exponent 3":    {func(p *parts) { k := f.ek.PublicKey; k.E = 3; p.key = oaep(&k) }, "for another EK"},
		"serial number 0":          {func(p *parts) { p.serial = []byte{2, 1, 0} }, ""},
		"no serial number":         {func(p *parts) { p.serial = []byte{2, 0} }, ""},
		"lists that are none":      {func(p *parts) { p.extra = field(listsOID, true, 5, 0) }, ""},
		"issuer nowhere":           {func(p *parts) { p.extra = field(issuerOID, false, 5, 0) }, ""},
		"issuer at no address": {func(p *parts) {
			p.extra = field(issuerOID, false, access(strict(0x86, []byte("http://a b/%zz\x00\xff")))...)
		}, ""},
		"issuer in a directory":      {func(p *parts) { p.extra = field(issuerOID, false, access(strict(0xa4, strict(0x30, nil)))...) }, ""},
		"path of no authority":       {func(p *parts) { p.extra = field("\x06\x03\x55\x1d\x13", true, 0x30, 3, 2, 1, 0) }, ""},
		"unique identifier":          {func(p *parts) { p.key = append(slices.Clone(p.key), 0x81, 2, 0, 1) }, ""},
		"usage that is none":         {func(p *parts) { p.extra = field(keyUsageOID, true, 5, 0) }, "malformed extension 2.5.29.15"},
		"state of its firmware":      {func(p *parts) { p.extra = field("\x06\x06\x67\x81\x05\x05\x04\x01", true, 0x30, 0) }, "extension 2.23.133.5.4.1, which is not supported"},
		"an extension that is empty": {func(p *parts) { p.extra = field("\x06\x03\x2a\x03\x04", false) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert})}, nil)
			f.certificates = [][]byte{m.issueOdd(f.ek.Public(), tt.change)}
			err := f.enroll(o)
			r := o.record(f.id())
			if tt.unused == "" {
				checkError(t, err, nil)
				o.verify(pool(m.cert))
				if name != "usage, and no name" && r.Manufacturer != "id:54534554" {
					t.Errorf("of %q", r.Manufacturer)
				}
				return
			}
			checkError(t, err, ErrPending)
			if !strings.Contains(r.Waits, "is not accepted: ") || !strings.Contains(r.Waits, tt.unused) {
				t.Errorf("%q, want %q", r.Waits, tt.unused)
			}
		})
	}
}

// TestCriticalFields takes certificates with critical extensions that forbid nothing, and no
// others, in strict DER and not.
func TestCriticalFields(t *testing.T) {
	m, f := newMaker(t, "Maker"), newForger(t)
	for _, tt := range []struct {
		oid    string
		unused string // the extension, or nothing if the certificate admits the device
	}{
		{"\x06\x03\x55\x1d\x12", ""},                     // another name of the issuer
		{"\x06\x03\x55\x1d\x2e", ""},                     // where to find a list
		{"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x0b", ""}, // where to find more
		{"\x06\x03\x55\x1d\x10", "2.5.29.16"},
		{"\x06\x03\x2a\x03\x04", "1.2.3.4"},
	} {
		for _, serial := range [][]byte{{2, 1, 7}, {2, 1, 0x80}} {
			o := newOffice(t, Policy{Bundle: bundleOf(t, []*x509.Certificate{m.cert})}, nil)
			f.certificates = [][]byte{m.issueOdd(f.ek.Public(), func(p *parts) {
				p.serial, p.extra = serial, slices.Concat(field(altNameOID, true, p.name...), field(tt.oid, true, 0x30, 0))
				p.name = nil // its usual form is not in DER
			})}
			err := f.enroll(o)
			if tt.unused == "" {
				checkError(t, err, nil)
			} else if waits := o.record(f.id()).Waits; !strings.Contains(waits, "it has the extension "+tt.unused+", which is not supported") {
				t.Errorf("%x: %q", tt.oid, waits)
			}
		}
	}
}
