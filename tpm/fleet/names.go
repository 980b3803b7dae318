package fleet

import "strings"

// pskSuffix ends the identity that a device has by pre-shared keys. The name without it
// is registered with the device's identity key.
const pskSuffix = "-psk"

// PSKIdentity returns the identity that the named device has by pre-shared keys.
func PSKIdentity(name string) string { return name + pskSuffix }

// CertificateIdentity returns the identity that the named device has by its
// certificate: the subject in the form of RFC 2253.
func CertificateIdentity(name string) string { return "CN=" + name }

// deviceName returns the name of a device from its identity by key or by certificate.
func deviceName(identity string) string {
	return strings.TrimPrefix(identity, CertificateIdentity(""))
}
