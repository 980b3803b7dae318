package proof

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	stdasn1 "encoding/asn1"
	"math/big"
)

// limits are the extensions with which a certificate limits the names and policies of those
// below it, and those that it has (RFC 5280 sections 4.2.1.4, 5, 6, 10, 11 and 14).
const (
	names           = "2.5.29.17"
	namesLimited    = "2.5.29.30"
	policies        = "2.5.29.32"
	policiesMapped  = "2.5.29.33"
	policiesLimited = "2.5.29.36"
	anyInhibited    = "2.5.29.54"
)

// readLimits reads such an extension as the standard library does, which compares it with the
// other certificates of a path: from a certificate that has only this extension. It reports
// whether all of the extension will be compared.
func readLimits(c *x509.Certificate, x pkix.Extension) bool {
	alone, err := certificateWith(x)
	if err != nil || len(alone.UnhandledCriticalExtensions) > 0 {
		return false
	}
	switch x.Id.String() {
	case namesLimited:
		c.PermittedDNSDomainsCritical = alone.PermittedDNSDomainsCritical
		c.PermittedDNSDomains, c.ExcludedDNSDomains = alone.PermittedDNSDomains, alone.ExcludedDNSDomains
		c.PermittedIPRanges, c.ExcludedIPRanges = alone.PermittedIPRanges, alone.ExcludedIPRanges
		c.PermittedEmailAddresses, c.ExcludedEmailAddresses = alone.PermittedEmailAddresses, alone.ExcludedEmailAddresses
		c.PermittedURIDomains, c.ExcludedURIDomains = alone.PermittedURIDomains, alone.ExcludedURIDomains
		return !limitsOtherNames(x.Value)
	case policies:
		c.Policies = alone.Policies
	case policiesMapped:
		c.PolicyMappings = alone.PolicyMappings
	case policiesLimited:
		c.RequireExplicitPolicy, c.RequireExplicitPolicyZero = alone.RequireExplicitPolicy, alone.RequireExplicitPolicyZero
		c.InhibitPolicyMapping, c.InhibitPolicyMappingZero = alone.InhibitPolicyMapping, alone.InhibitPolicyMappingZero
	case anyInhibited:
		c.InhibitAnyPolicy, c.InhibitAnyPolicyZero = alone.InhibitAnyPolicy, alone.InhibitAnyPolicyZero
	}
	return true
}

// readNames reads the names that others may limit. If they cannot be read, they include one that
// is in no limits.
func readNames(c *x509.Certificate, x pkix.Extension) {
	alone, err := certificateWith(x)
	if err != nil {
		c.DNSNames = []string{""}
		return
	}
	c.DNSNames, c.EmailAddresses, c.IPAddresses, c.URIs = alone.DNSNames, alone.EmailAddresses, alone.IPAddresses, alone.URIs
}

// certificateWith makes a certificate with an extension, which nobody else sees.
func certificateWith(x pkix.Extension) (*x509.Certificate, error) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), ExtraExtensions: []pkix.Extension{x}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func nameConstraints() stdasn1.ObjectIdentifier { return stdasn1.ObjectIdentifier{2, 5, 29, 30} }
