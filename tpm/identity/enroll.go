package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An Exchange sends a message to the authority, at most [MaxMessage] bytes, and
// returns its answer.
type Exchange func(ctx context.Context, request []byte) (response []byte, err error)

// Enroll proves the identity to an authority, and keeps the name and the certificates
// that it receives. It can be repeated at any time: it also completes an interrupted
// renewal, and gets the answer for a device that waited for approval ([ErrPending]). See
// [ErrPending] and the errors after it for the answers of an authority. progress, if not
// nil, is called before each step.
func (d *Device) Enroll(ctx context.Context, exchange Exchange, progress func(string)) error {
	end, err := d.takeTurn(ctx, progress)
	if err != nil {
		return err
	}
	defer end()
	k, err := d.readReady()
	if err != nil {
		return err
	}
	return d.application(k, exchange, progress).run(ctx)
}

// Renew enrolls new keys, for which the enrolled one vouches. After an error the old
// keys stay in use, and the next Renew or Enroll continues with the same new ones.
func (d *Device) Renew(ctx context.Context, exchange Exchange, progress func(string)) error {
	end, err := d.takeTurn(ctx, progress)
	if err != nil {
		return err
	}
	defer end()
	k, err := d.readReady()
	if err != nil {
		return err
	}
	if k.file.state.Identity == nil {
		return fmt.Errorf("enroll: %w", ErrNotEnrolled)
	}
	if len(k.file.state.Next) == 0 {
		report(progress, "making new identity keys")
		if err := k.makeNext(); err != nil {
			return err
		}
	}
	return d.application(k, exchange, progress).run(ctx)
}

// makeNext makes the new keys of a renewal, of the same kinds as the present ones.
func (k keyring) makeNext() error {
	var next []tpm.Blob
	for _, old := range k.file.state.Keys {
		b, err := k.create(old.Algorithm, false)
		if err != nil {
			return cleared(err)
		}
		next = append(next, b)
	}
	return k.file.save(func(s *state) { s.Next = next })
}

func report(progress func(string), what string) {
	if progress != nil {
		progress(what)
	}
}

// An application is one attempt to enroll keys.
type application struct {
	keyring
	pcrs     []uint
	log      []byte // event log, compressed
	now      func() time.Time
	exchange Exchange
	progress func(string)
	maker    *makerKey // with a certificate of the device's maker, or nil
}

// application prepares an attempt to enroll the keys of this device.
func (d *Device) application(k keyring, exchange Exchange, progress func(string)) *application {
	a := &application{keyring: k, pcrs: d.PCRs, now: d.now, exchange: exchange, progress: progress}
	if len(d.PCRs) == 0 || len(d.EventLog) == 0 {
		return a
	}
	packed, err := proof.PackLog(d.EventLog)
	if err != nil {
		report(progress, err.Error())
	}
	a.log = packed
	return a
}

// run makes the attempt, and repeats it once if the challenge expired.
func (a *application) run(ctx context.Context) error {
	err := a.do(func(t transport.TPM) (err error) {
		a.maker, err = findMakerKey(t, a.progress)
		return err
	})
	if err != nil {
		return err
	}
	r, err := a.converse(ctx)
	if errors.Is(err, ErrStale) {
		r, err = a.converse(ctx)
	}
	for _, leaveOut := range a.novelties() {
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrKey) {
			break
		}
		leaveOut()
		r, err = a.converse(ctx)
	}
	if err == nil {
		err = a.accept(r)
	}
	if err != nil && !fromAuthority(err) {
		return err
	}
	last := outcome{Time: a.now(), State: proof.StateEnrolled}
	if err != nil {
		last.State = proof.FaultWord(err)
	}
	return errors.Join(err, a.file.save(func(s *state) { s.Last = &last }))
}

// novelties returns functions that each drop what an older authority does not know,
// newest first.
func (a *application) novelties() (all []func()) {
	if a.log != nil {
		all = append(all, func() { a.log = nil })
	}
	if a.maker != nil {
		all = append(all, func() { a.maker = nil })
	}
	return all
}

// fromAuthority reports whether an error is an answer of the authority, which Status
// shows.
func fromAuthority(err error) bool {
	for _, kind := range []error{ErrPending, ErrRejected, ErrRevoked, ErrKeyRevoked, ErrPolicy, ErrEKCertificate, ErrRenewal} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// keys returns the keys to enroll.
func (a *application) keys() []tpm.Blob {
	if len(a.file.state.Next) > 0 {
		return a.file.state.Next
	}
	return a.file.state.Keys
}

// converse sends a device's two messages, and returns the answer to the second.
func (a *application) converse(ctx context.Context) (proof.Result, error) {
	b, err := a.begin()
	if err != nil {
		return proof.Result{}, err
	}
	answer, err := a.send(ctx, "asking for a challenge", proof.Encode(b))
	if err != nil {
		return proof.Result{}, err
	}
	c, err := readAnswer[proof.Challenge](answer, proof.TypeChallenge)
	if err != nil {
		return proof.Result{}, err
	}
	report(a.progress, "proving the identity")
	p, err := a.prove(b, c)
	if err != nil {
		return proof.Result{}, err
	}
	answer, err = a.send(ctx, "waiting for the authority", proof.Encode(p))
	if err != nil {
		return proof.Result{}, err
	}
	return proof.ParseResult(answer)
}

func (a *application) send(ctx context.Context, what string, request []byte) ([]byte, error) {
	report(a.progress, what)
	answer, err := a.exchange(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("enroll: exchange with the authority: %w", err)
	}
	return answer, nil
}

// readAnswer reads an answer of that type, or the error that the authority sent instead.
func readAnswer[T any](answer []byte, kind string) (v T, err error) {
	got, err := proof.MessageType(answer)
	if err != nil {
		return v, err
	}
	if got == proof.TypeResult {
		if _, err := proof.ParseResult(answer); err != nil {
			return v, err
		}
	}
	return proof.Parse[T](answer, kind)
}

// accept checks the name and the certificates that the authority gave, and makes them
// the identity in one write.
func (a *application) accept(r proof.Result) error {
	keys := a.keys()
	if r.Name == "" || len(r.Certificates) > 0 && len(r.Certificates) != len(keys) {
		return proof.Fail(ErrMalformed, "%d certificates for %d keys", len(r.Certificates), len(keys))
	}
	for i, der := range r.Certificates {
		if err := checkIssued(der, r.CA, keys[i]); err != nil {
			return err
		}
	}
	return a.file.save(func(s *state) {
		s.Keys, s.Next = keys, nil
		s.Identity = &deviceResult{Name: r.Name, Enrolled: a.now(), Certificates: r.Certificates, CA: r.CA}
	})
}

// checkIssued checks that a certificate (DER) is for the key and signed by the CA.
func checkIssued(der, ca []byte, key tpm.Blob) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return proof.Fail(ErrMalformed, "certificate: %w", err)
	}
	p, err := proof.ParsePublic(key.Public)
	if err != nil {
		return err
	}
	if !keystore.SamePublic(c.PublicKey, p.Key) {
		return proof.Fail(ErrMalformed, "the certificate is for another key")
	}
	issuer, err := x509.ParseCertificate(ca)
	if err != nil {
		return proof.Fail(ErrMalformed, "certificate of the authority: %w", err)
	}
	if err := c.CheckSignatureFrom(issuer); err != nil {
		return proof.Fail(ErrMalformed, "certificate: %w", err)
	}
	return nil
}
