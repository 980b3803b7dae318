package exit

import (
	"crypto/x509"
	"errors"
	"slices"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/tlsalert"
)

// notProven are the codes for an answer that is not from the required sender.
var notProven = []msl.Code{
	msl.ErrUnidentifiedEntityAuthScheme, msl.ErrEntityAuthFactoryNotFound, // not proven in an accepted way
	msl.ErrX509CertParseError, msl.ErrX509CertVerificationFailed, msl.ErrX509CertExpired, msl.ErrX509CertNotYetValid, msl.ErrX509CertInvalid,
	msl.ErrEntityNotFound, msl.ErrIncorrectEntityAuthData, msl.ErrRSAPublicKeyNotFound, msl.ErrECCPublicKeyNotFound,
	msl.ErrMessageEntityNotFound, msl.ErrMessageSenderMismatch, msl.ErrMessageRecipientMismatch,
	msl.ErrMessageVerificationFailed, msl.ErrMessageEntityDataBasedVerificationFailed, msl.ErrMessageMasterTokenBasedVerificationFailed,
	msl.ErrPayloadVerificationFailed, msl.ErrSignatureError, msl.ErrInvalidSignature, msl.ErrSignatureEnvelopeParseError,
}

// untrusted reports whether the server did not prove to be the trusted one.
func untrusted(err error) bool { return UntrustedAnswer(err) || UntrustedCertificate(err) }

// UntrustedAnswer reports whether a message was refused because its sender did not prove
// to be the trusted one. It is false for an error message of the server.
func UntrustedAnswer(err error) bool {
	peer, own := (*msl.PeerError)(nil), (*msl.Error)(nil)
	return !errors.As(err, &peer) && errors.As(err, &own) && slices.Contains(notProven, own.Code)
}

// NotValidNow reports whether this side refused a certificate because of its dates: it or the clock
// is wrong.
func NotValidNow(err error) bool {
	var invalid x509.CertificateInvalidError
	var peer *msl.PeerError
	dated := errors.Is(err, msl.ErrX509CertExpired) || errors.Is(err, msl.ErrX509CertNotYetValid)
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired || dated && !errors.As(err, &peer)
}

// UntrustedCertificate reports whether this side refused the TLS certificate of a server.
func UntrustedCertificate(err error) bool {
	alert := (*tlsalert.Error)(nil)
	return errors.As(err, &alert) && alert.Origin == tlsalert.Sent && slices.Contains([]tlsalert.Alert{
		tlsalert.BadCertificate, tlsalert.UnsupportedCertificate, tlsalert.CertificateRevoked,
		tlsalert.CertificateExpired, tlsalert.CertificateUnknown, tlsalert.UnknownCA,
	}, alert.Alert)
}
