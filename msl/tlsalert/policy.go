package tlsalert

import "crypto/tls"

// The values of the level byte in an alert's record.
const (
	WarningByte = 1
	FatalByte   = 2
)

// Fatal reports whether a received alert is fatal, by the policy that the package
// documents. level is the first byte of its record; version is that of the connection
// (tls.VersionTLS12, …), or 0 before it is negotiated. close_notify is not fatal: it ends
// the connection, but is not a failure.
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

// Allowed reports whether the side from may send a; extended says whether the hello of
// its peer had extensions (RFC 5246 section 7.2.2). Neither side may send a reserved
// alert.
func (a Alert) Allowed(from Side, extended bool) bool {
	info := a.Info()
	return !info.Reserved && info.Sender&from == from && (extended || !info.Extension)
}
