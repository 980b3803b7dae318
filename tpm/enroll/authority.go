package enroll

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// MaxMessage is the largest message of an enrollment in bytes, in either
// direction.
const MaxMessage = proof.MaxMessage

// A Config is how an [Authority] works. Records are needed; the rest has defaults.
type Config struct {
	Records Records
	Policy  Policy

	// Certificate and Key are the CA that issues LDevID certificates, see
	// [NewCA]. Without it, keys are only registered.
	Certificate *x509.Certificate
	Key         crypto.Signer
	Validity    time.Duration // of certificates; default one year, never longer than the CA's
	CRLLife     time.Duration // until the next CRL; default seven days

	// MAC makes challenges: an HMAC-SHA256 key for this use alone, shared by
	// the servers that answer one another's challenges. The default is one in
	// memory, so that devices begin again after a restart.
	MAC           keystore.MAC
	ChallengeLife time.Duration // default ten minutes: chips are slow

	MaxPending int     // devices that wait for a person; default 1000
	PerSecond  float64 // messages, for all devices together; default 50, with bursts of twice as many

	// Register makes a device known to the protocol above, before it is
	// enrolled: other keys of its name are to be replaced. It is called again
	// after a crash or an error, so it must be idempotent. Nil does nothing.
	Register func(context.Context, Identity) error
	// Withdraw undoes Register for these keys of that name. What the name was
	// given since stays: another device may have it by now. It is called again
	// after an error, so it must be idempotent. Nil does nothing.
	Withdraw func(context.Context, Identity) error

	Time func() time.Time // default time.Now
}

// An Authority enrolls devices. It is safe for use by many goroutines, and must be
// the only one that changes its records.
type Authority struct {
	c     Config
	mac   func(data []byte) ([]byte, error)
	limit *rate.Limiter
	mu    sync.Mutex // held from the reading of a record to its change
}

// NewAuthority makes an authority. It fails if the CA cannot issue.
func NewAuthority(c Config) (*Authority, error) {
	if c.Records == nil {
		return nil, fmt.Errorf("enroll: an authority needs records")
	}
	c.Validity = cmp.Or(c.Validity, 365*24*time.Hour)
	c.CRLLife = cmp.Or(c.CRLLife, 7*24*time.Hour)
	c.ChallengeLife = cmp.Or(c.ChallengeLife, 10*time.Minute)
	c.MaxPending = cmp.Or(c.MaxPending, 1000)
	c.PerSecond = cmp.Or(c.PerSecond, 50)
	if c.Time == nil {
		c.Time = time.Now
	}
	if c.Certificate != nil {
		if err := checkCA(c.Certificate, c.Key, c.Time()); err != nil {
			return nil, err
		}
	}
	a := &Authority{c: c, limit: rate.NewLimiter(rate.Limit(c.PerSecond), int(2*c.PerSecond)+1)}
	if a.mac = macOf(c.MAC); a.mac == nil {
		return nil, fmt.Errorf("enroll: the key of challenges must be for HMAC-SHA256")
	}
	return a, nil
}

// Handle answers one message of a device. There always is an answer to send;
// the error is for the log of the authority: nil if the device has what it came
// for, or what it needs to go on. See [ErrPending] and its neighbours.
func (a *Authority) Handle(ctx context.Context, request []byte) (response []byte, err error) {
	if !a.limit.Allow() {
		err = proof.Fail(ErrBusy, "more than %g messages in a second", a.c.PerSecond)
		return proof.ErrorResult("", err), err
	}
	id, response, err := a.handle(ctx, request)
	if err != nil {
		return proof.ErrorResult(id, err), err
	}
	return response, nil
}

func (a *Authority) handle(ctx context.Context, request []byte) (id string, response []byte, err error) {
	kind, err := proof.MessageType(request)
	if err != nil {
		return "", nil, err
	}
	switch kind {
	case proof.TypeBegin:
		response, err = a.begin(ctx, request)
		return "", response, err
	case proof.TypeProof:
		return a.proof(ctx, request)
	}
	return "", nil, proof.Fail(ErrMalformed, "type %q", proof.Shorten(kind))
}

// begin answers with a challenge. It tells nothing of what is known of the EK.
func (a *Authority) begin(ctx context.Context, request []byte) ([]byte, error) {
	b, err := proof.Parse[proof.Begin](request, proof.TypeBegin)
	if err != nil {
		return nil, err
	}
	o, err := b.Open()
	if err != nil {
		return nil, err
	}
	if err := checkCertificateKey(&o, &b); err != nil {
		return nil, err
	}
	r, err := a.Get(ctx, o.EKHash)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return nil, err
	}
	c, err := a.challenge(&b, &o, max(a.c.Time().UnixNano(), r.Newest+1))
	if err != nil {
		return nil, err
	}
	return proof.Encode(c), nil
}

// proof checks everything that can be checked without the record, then takes
// the record from one state to the next.
func (a *Authority) proof(ctx context.Context, request []byte) (string, []byte, error) {
	p, err := proof.Parse[proof.Proof](request, proof.TypeProof)
	if err != nil {
		return "", nil, err
	}
	if err := a.checkChallenge(&p); err != nil {
		return "", nil, err
	}
	o, err := p.Open()
	if err != nil {
		return "", nil, err
	}
	id := ID(o.EKHash)
	a.mu.Lock()
	defer a.mu.Unlock()
	r, err := a.Get(ctx, id)
	if errors.Is(err, ErrUnknown) {
		r, err = Record{ID: id, Name: defaultName(id), Created: a.c.Time()}, nil
	}
	if err != nil {
		return "", nil, err
	}
	response, err := a.advance(ctx, &application{proof: &p, offered: &o, raw: request, record: &r, now: a.c.Time()})
	return id.String(), response, err
}

// Get returns the record of a device, or [ErrUnknown].
func (a *Authority) Get(ctx context.Context, id ID) (r Record, err error) {
	err = a.c.Records.View(ctx, func(tx Tx) error {
		r, err = tx.Get(id)
		return err
	})
	return r, err
}

// List returns all records, by rising ID.
func (a *Authority) List(ctx context.Context) (list []Record, err error) {
	err = a.c.Records.View(ctx, func(tx Tx) error {
		list = nil
		return tx.All(func(r Record) error { list = append(list, r); return nil })
	})
	return list, err
}

func (a *Authority) put(ctx context.Context, r Record) error {
	return a.c.Records.Update(ctx, func(tx Tx) error { return tx.Put(r) })
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
