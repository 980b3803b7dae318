package fleet

import "strings"

// pskSuffix ends the identity that a device has by pre-shared keys. Its name alone
// is registered with its identity key.
const pskSuffix = "-psk"

// PSKIdentity is the identity that a device of that name has by pre-shared keys.
func PSKIdentity(name string) string { return name + pskSuffix }

// CertificateIdentity is the identity that a device of that name has by its
// certificate: the subject, as RFC 2253 writes it.
func CertificateIdentity(name string) string { return "CN=" + name }

// deviceName is the name of a device, from the identity by its key or by its
// certificate.
func deviceName(identity string) string {
	return strings.TrimPrefix(identity, CertificateIdentity(""))
}
