package tlsalert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
)

// An Origin says which side raised an alert.
type Origin uint8

const (
	Sent     Origin = iota + 1 // by this side
	Received                   // from the peer
)

// String returns sent or received.
func (o Origin) String() string {
	switch o {
	case Sent:
		return "sent"
	case Received:
		return "received"
	}
	return "unknown"
}

// MarshalText writes what String returns.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// An Error is a failure of TLS with its alert.
type Error struct {
	Alert  Alert
	Origin Origin
	Err    error // of crypto/tls
}

// Error says which side raised the alert, why, and what to do next.
func (e *Error) Error() string {
	info := e.Alert.Info()
	who, next := "this side sent TLS alert", info.IfSent
	if e.Origin == Received {
		who, next = "the peer sent TLS alert", info.IfReceived
	}
	s := fmt.Sprintf("tlsalert: %s %d %v", who, info.Number, e.Alert)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + "; " + next
}

// Unwrap returns the error of crypto/tls.
func (e *Error) Unwrap() error { return e.Err }

// From finds the alert in an error that crypto/tls returned, however often it was
// wrapped, and says which side raised it. It reads the errors of stream connections
// (a *net.OpError around a type that crypto/tls does not export), of QUIC
// (tls.AlertError), and those that give a cause instead of the alert that was sent. The
// end of a connection is not an alert, and neither is io.EOF.
//
// Some causes do not determine the alert. If a certificate does not verify, From
// assumes that the error comes from a client, which always sends bad_certificate in Go;
// for a server use [FromServer]. Where TLS 1.2 and 1.3 have different alerts for a
// cause, From returns that of TLS 1.3.
func From(err error) (Alert, Origin, bool) { return find(err, Client) }

// FromServer is [From] for the errors of a server: if a certificate does not verify,
// the alert may also be unknown_ca or certificate_expired.
func FromServer(err error) (Alert, Origin, bool) { return find(err, Server) }

// find prefers types to texts: a type gives the alert itself, a text only a cause.
func find(err error, side Side) (a Alert, o Origin, found bool) {
	typed := func(e error) bool {
		a, o, found = inType(e, side)
		return found
	}
	text := func(e error) bool {
		a, o, found = inText(e)
		return found
	}
	_ = walk(err, typed) || walk(err, text)
	return a, o, found
}

// walk visits err and what it wraps, as errors.Is does, until visit is done.
func walk(err error, visit func(error) bool) (done bool) {
	// A nil pointer in an error holds no alert, and its methods may panic.
	if v := reflect.ValueOf(err); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return false
	}
	if visit(err) {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return walk(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if walk(inner, visit) {
				return true
			}
		}
	}
	return false
}

// inType finds the alert by the type of one error, not of those it wraps.
func inType(err error, side Side) (Alert, Origin, bool) {
	switch e := err.(type) {
	case *Error:
		return e.Alert, e.Origin, true
	case tls.AlertError: // of QUIC, which reports a received alert differently
		return Alert(e), Sent, true
	case *net.OpError:
		return inOperation(e.Op, e.Err)
	case *tls.CertificateVerificationError:
		return judgement(e.Err, side), Sent, true
	case *tls.ECHRejectionError:
		return ECHRequired, Sent, true
	}
	return 0, 0, false
}

// inOperation reads an error that crypto/tls returns for a stream connection. The type
// of the alert in it is not exported, but its text is that of tls.AlertError.
func inOperation(op string, err error) (Alert, Origin, bool) {
	origin := map[string]Origin{"local error": Sent, "remote error": Received}[op]
	if origin == 0 || !isLeaf(err) {
		return 0, 0, false
	}
	a, ok := numberOf(err.Error())
	if !ok {
		return 0, 0, false
	}
	return a, origin, true
}

// isLeaf reports whether err wraps nothing, like an alert of crypto/tls or a cause.
func isLeaf(err error) bool {
	switch err.(type) {
	case nil, interface{ Unwrap() error }, interface{ Unwrap() []error }:
		return false
	}
	return true
}

// numberOf finds the alert that has this text in crypto/tls.
func numberOf(text string) (Alert, bool) {
	for n := range 256 {
		if tls.AlertError(n).Error() == text {
			return Alert(n), true
		}
	}
	return 0, false
}

// judgement returns the alert for a certificate that does not verify.
func judgement(err error, side Side) Alert {
	a := BadCertificate
	if side == Client {
		return a
	}
	walk(err, func(e error) bool {
		switch e := e.(type) {
		case x509.UnknownAuthorityError:
			a = UnknownCA
			return true
		case x509.CertificateInvalidError:
			if e.Reason == x509.Expired {
				a = CertificateExpired
			}
			return true
		}
		return false
	})
	return a
}

// inText reads an error that wraps nothing and has no type of its own: an alert whose
// error was turned into text, or a cause for which crypto/tls sent an alert.
func inText(err error) (Alert, Origin, bool) {
	if !isLeaf(err) {
		return 0, 0, false
	}
	text := err.Error()
	for _, op := range []string{"local error", "remote error"} {
		if rest, ok := strings.CutPrefix(text, op+": "); ok {
			return inOperation(op, errors.New(rest))
		}
	}
	if !strings.HasPrefix(text, "tls: ") {
		return 0, 0, false
	}
	if a, ok := numberOf(text); ok {
		return a, Sent, true
	}
	for _, c := range causes {
		if strings.HasPrefix(text, c.text) {
			return c.alert, Sent, true
		}
	}
	return 0, 0, false
}
