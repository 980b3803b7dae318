package tlsalert

import "crypto/tls"

// The level byte of an alert's record.
const (
	WarningByte = 1
	FatalByte   = 2
)

// Fatal decides whether a received alert is fatal, by the policy that the package
// documents: level is the first byte of its record, version that of the connection
// (tls.VersionTLS12, …) or 0 before it is agreed on. close_notify is not: it ends
// the connection, but no failure.
func (a Alert) Fatal(level uint8, version uint16) bool {
	switch {
	case a == CloseNotify:
		return false
	case version >= tls.VersionTLS13:
		return a != UserCanceled
	case level != WarningByte:
		return true
	}
	switch a {
	case UserCanceled, NoRenegotiation, UnrecognizedName, CertificateUnobtainable, NoCertificate:
		return false
	}
	return true
}

// Allowed reports whether that side may send a to a peer whose hello had extensions
// or had none (RFC 5246 section 7.2.2). A reserved alert is not allowed to anybody.
func (a Alert) Allowed(from Side, extended bool) bool {
	info := a.Info()
	return !info.Reserved && info.Sender&from == from && (extended || !info.Extension)
}
