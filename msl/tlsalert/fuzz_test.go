package tlsalert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
)

// build makes an error from a recipe: each byte wraps it in one more way.
func build(recipe []byte, text string) error {
	err := errors.New(text)
	for _, b := range recipe {
		switch b % 12 {
		case 0:
			err = fmt.Errorf("%s: %w", text, err)
		case 1:
			err = errors.Join(io.EOF, err)
		case 2:
			err = &net.OpError{Op: "remote error", Err: err}
		case 3:
			err = &net.OpError{Op: "local error", Err: tls.AlertError(b)}
		case 4:
			err = &net.OpError{Op: text, Err: err}
		case 5:
			err = fmt.Errorf("%w and %w", err, tls.AlertError(b))
		case 6:
			err = &tls.CertificateVerificationError{Err: err}
		case 7:
			err = &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.InvalidReason(b % 8)}}
		case 8:
			err = errors.Join(err, (*net.OpError)(nil), (*Error)(nil))
		case 9:
			err = &Error{Alert: Alert(b), Origin: Received, Err: err}
		case 10:
			err = &net.OpError{Op: "remote error"}
		case 11:
			err = tls.RecordHeaderError{Msg: text}
		}
	}
	return err
}

func FuzzFrom(f *testing.F) {
	f.Add([]byte{2, 0}, "tls: bad certificate")
	f.Add([]byte{}, "remote error: tls: alert(200)")
	f.Add([]byte{6, 4}, "tls: client requested unsupported application protocols ([\"remote error: tls: bad record MAC\"])")
	f.Add([]byte{8, 10, 1}, "")
	f.Add([]byte{11}, "oversized record received with length 20000")
	f.Fuzz(func(t *testing.T, recipe []byte, text string) {
		if len(recipe) > 50 {
			return
		}
		err := build(recipe, text)
		a, o, ok := From(err)
		if ok != (o == Sent || o == Received) || !ok && a != 0 {
			t.Errorf("%v %v %v of %v", a, o, ok, err)
		}
		for _, wrapped := range []error{fmt.Errorf("x: %w", err), errors.Join(errors.New("x"), err), &net.OpError{Op: "read", Err: err}} {
			if a2, o2, ok2 := From(wrapped); a2 != a || o2 != o || ok2 != ok {
				t.Errorf("wrapping %v turned %v %v %v into %v %v %v", err, a, o, ok, a2, o2, ok2)
			}
		}
		if b, o2, ok2 := FromServer(err); o2 != o || ok2 != ok || b != a && a != BadCertificate {
			t.Errorf("a server finds %v %v %v, a client %v %v %v", b, o2, ok2, a, o, ok)
		}
		if ok {
			_ = fmt.Sprint(&Error{Alert: a, Origin: o, Err: err}) // whose cause may panic
		}
	})
}
