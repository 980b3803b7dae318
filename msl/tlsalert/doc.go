// Package tlsalert explains the alerts of TLS: what each one means, who may send it,
// whether it ends the connection, and what an operator should do about it.
//
// MSL does not need TLS, but often runs over it. Then a conversation can fail in two
// unrelated ways: an MSL error is a statement of the peer about a message, its tokens
// and its credentials; a TLS alert is a statement about the connection below. This
// package keeps the two apart.
//
// # Which function do I want
//
//   - To find the alert in an error of crypto/tls, net/http or a QUIC stack: [From],
//     and [FromServer] for the errors of a server's handshakes.
//   - To explain an alert: [Alert.Info]. To read a name or a number: [Parse]. To list
//     all alerts: [All].
//   - To decide whether a received alert is fatal: [Alert.Fatal]. To check whether an
//     alert may be sent: [Alert.Allowed].
//   - To count alerts: a [Counter].
//
// # How levels are decided
//
// Up to TLS 1.2 an alert is a warning or fatal, and for some alerts the
// specifications leave the choice to the sender, or say nothing. The policy here is:
//
//   - Alerts that are sent are fatal, except close_notify and no_renegotiation.
//   - Alerts received as fatal are fatal.
//   - Of the alerts received as warnings, user_canceled, no_renegotiation,
//     unrecognized_name, certificate_unobtainable and no_certificate are warnings: the
//     sender says that it continues, and the identity of this side is not in doubt. All
//     others are fatal, especially those about certificates: a connection must not
//     continue as if nothing had happened when a peer does not trust this side's
//     certificate.
//   - In TLS 1.3 the level means nothing (RFC 8446 section 6): every alert except
//     close_notify and user_canceled is fatal.
//
// # What it does not protect
//
// Before a connection is encrypted its alerts are not authenticated: anyone on the path
// can send one. An alert is a hint for an operator, never a proof. An error that does not
// come from crypto/tls is mistaken for one of its errors if the text is the same.
package tlsalert
