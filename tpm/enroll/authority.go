package enroll

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// MaxMessage is the largest message of an enrollment in bytes, in either
// direction.
const MaxMessage = proof.MaxMessage

// A Config configures an [Authority]. Records are required; the rest has defaults.
type Config struct {
	Records Records
	Policy  Policy

	// Certificate and Key are the CA that issues LDevID certificates, see
	// [NewCA]. Without it, keys are only registered.
	Certificate *x509.Certificate
	Key         crypto.Signer
	Validity    time.Duration // of certificates; default one year, never longer than the CA's
	CRLLife     time.Duration // until the next CRL; default seven days

	// MAC returns the versions of an HMAC-SHA256 key, newest first. The newest makes
	// challenges; each recognizes its own. Servers with the same key accept one another's
	// challenges. The authenticated data begins with "msl-hsm tpm enrolment", so that the
	// key may have another use whose data never does. The default is a key in memory:
	// after a restart, devices with a challenge begin again.
	MAC           func() ([]keystore.MAC, error)
	ChallengeLife time.Duration // default ten minutes: chips are slow

	MaxPending int     // devices that may wait for a person; default 1000
	PerSecond  float64 // messages from all devices together, two for an enrollment; default 50, with bursts of twice as many
	Window     Window  // counts them for several authorities together; nil means only for this one

	// Register makes a device known to the protocol above before it is enrolled,
	// replacing other keys of its name. It is called again after a crash or an error, so
	// it must be idempotent, and concurrently for several devices. Nil does nothing.
	Register func(context.Context, Identity) error
	// Withdraw undoes Register for these keys of that name, but not for keys that the
	// name has received since then: another device may have it by now. It is called again
	// after an error, so it must be idempotent, and concurrently for several devices. Nil
	// does nothing.
	Withdraw func(context.Context, Identity) error

	// Revoked reports whether the protocol above has revoked a name. A name revoked
	// before this authority withdraws a device stays revoked when the device enrolls
	// again, and when another one gets the name. Nil says that no name is revoked.
	Revoked func(ctx context.Context, name string) (bool, error)

	Time func() time.Time // default time.Now
}

// An Authority enrolls devices. It is safe for concurrent use, and must be the only one
// that changes its records.
type Authority struct {
	policy     Policy
	challenges challenger
	ca         *issuer // nil: keys are only registered
	registry   registry
	limit      *throttle
	now        func() time.Time

	ledger
}

// NewAuthority makes an authority. Missing records, a CA that cannot issue certificates
// ([ErrCA]), and a key of challenges of the wrong kind are errors.
func NewAuthority(c Config) (*Authority, error) {
	if c.Records == nil {
		return nil, fmt.Errorf("enroll: an authority needs records")
	}
	a := &Authority{
		policy: c.Policy, now: c.Time,
		ledger:   ledger{records: c.Records, maxPending: cmp.Or(c.MaxPending, 1000)},
		registry: registry{register: c.Register, withdraw: c.Withdraw, revoked: c.Revoked},
	}
	if a.now == nil {
		a.now = time.Now
	}
	a.limit = newThrottle(cmp.Or(c.PerSecond, 50), c.Window)
	a.challenges = challenger{macs: macsOf(&c), life: cmp.Or(c.ChallengeLife, 10*time.Minute)}
	if _, err := a.challenges.macs(); err != nil {
		return nil, err
	}
	if c.Certificate != nil {
		if err := checkCA(c.Certificate, c.Key, a.now()); err != nil {
			return nil, err
		}
		a.ca = &issuer{
			certificate: c.Certificate, key: c.Key,
			validity: cmp.Or(c.Validity, 365*24*time.Hour), crlLife: cmp.Or(c.CRLLife, 7*24*time.Hour),
		}
	}
	return a, nil
}
