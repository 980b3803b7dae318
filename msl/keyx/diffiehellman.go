package keyx

import (
	"bytes"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/internal/wire"
)

// DiffieHellman is the scheme DIFFIE_HELLMAN (MSL wiki, "Diffie-Hellman Key Exchange"),
// modulo a prime. Both sides compute the session keys in this process, so custody must be
// imported or shared, and Store a keystore.Importer.
//
// The arithmetic is that of math/big, which is not constant-time. Both sides make a new
// pair for each exchange, so an attacker who measures that time can observe a private
// value only once or twice.
type DiffieHellman struct {
	Store keystore.Store
	// Groups are the parameter groups agreed on in the network: a responder accepts any,
	// a requester offers the first.
	Groups []DHGroup
	// AllowSmallGroups accepts groups of less than 2048 bits, which can be broken: for
	// tests against recordings.
	AllowSmallGroups bool

	Rand io.Reader // nil means crypto/rand
}

const minPrime, maxPrime = 2048, 8192

// Scheme returns DIFFIE_HELLMAN.
func (*DiffieHellman) Scheme() string { return "DIFFIE_HELLMAN" }

// Exposes declares that the process sees the session keys.
func (*DiffieHellman) Exposes() msl.Exposure {
	return msl.Exposure{Bytes: true, Why: "session keys are a hash of the shared secret, which is computed in software"}
}

func (x *DiffieHellman) group(id string) (DHGroup, error) {
	for _, g := range x.Groups {
		if g.ID != id {
			continue
		}
		bits := 0
		if g.P != nil && g.G != nil {
			bits = g.P.BitLen()
		}
		if bits < minPrime && !x.AllowSmallGroups || bits > maxPrime || bits < 64 || !g.inside(g.G) {
			return DHGroup{}, msl.Failure(msl.ErrUnknownKeyXParametersID, x.Scheme(), fmt.Errorf("group %q of %d bits is not used", id, bits))
		}
		return g, nil
	}
	return DHGroup{}, msl.Failure(msl.ErrUnknownKeyXParametersID, x.Scheme(), nil)
}

// inside reports whether a number is a safe element of the group: 2 ≤ y ≤ p−2 (RFC 2631
// section 2.1.5, without the trivial ones).
func (g DHGroup) inside(y *big.Int) bool {
	return y.Cmp(big.NewInt(2)) >= 0 && y.Cmp(new(big.Int).Sub(g.P, big.NewInt(2))) <= 0
}

// parse reads the form of a request or a response.
func (x *DiffieHellman) parse(f *wire.Fields) (id string, public []byte, err error) {
	id, public = f.String("parametersid"), f.Bytes("publickey")
	if err := malformed(f); err != nil {
		return "", nil, err
	}
	if len(public) == 0 {
		return "", nil, msl.Failure(msl.ErrKeyXInvalidPublicKey, x.Scheme(), nil)
	}
	return id, public, nil
}

// read reads a request or a response, and checks that its public value is in the group that
// it names.
func (x *DiffieHellman) read(f *wire.Fields) (g DHGroup, y *big.Int, err error) {
	id, public, err := x.parse(f)
	if err != nil {
		return g, nil, err
	}
	if g, err = x.group(id); err != nil {
		return g, nil, err
	}
	public = bytes.TrimLeft(public, "\x00")
	if y = new(big.Int); len(public) <= maxPrime/8 {
		y.SetBytes(public)
	}
	if !g.inside(y) {
		return g, nil, msl.Failure(msl.ErrKeyXInvalidPublicKey, x.Scheme(), errors.New("public value is not in the group"))
	}
	return g, y, nil
}

// Check refuses an empty public value with error 7011. An unconfigured group (7009) and a
// public value outside its group (7011) are errors of Respond.
func (x *DiffieHellman) Check(keydata []byte) error {
	_, _, err := x.parse(wire.ParseFields(keydata))
	return err
}

// Respond makes a key pair, and from it and the requester's the session keys.
func (x *DiffieHellman) Respond(_ context.Context, from msl.Requester, keydata []byte) (*msl.SessionKeys, []byte, error) {
	g, y, err := x.read(wire.ParseFields(keydata))
	if err != nil {
		return nil, nil, err
	}
	private, err := x.draw(g)
	if err != nil {
		return nil, nil, err
	}
	defer wipe(private)
	raw, err := g.agree(y, private)
	if err != nil {
		return nil, nil, err
	}
	keys, err := from.Custody.Import(x.Store, raw)
	if err != nil {
		return nil, nil, err
	}
	return keys, g.encode(private), nil
}

// exponentBits is the size of private values: for the built-in groups, whose subgroups
// are known, at least what RFC 3526 section 8 recommends for any of them.
func (g DHGroup) exponentBits() int {
	if g.exponent > 0 {
		return g.exponent
	}
	return g.P.BitLen()
}

// draw makes a private value.
func (x *DiffieHellman) draw(g DHGroup) (*big.Int, error) {
	bits := g.exponentBits()
	memory := lockedmem.New((bits + 7) / 8)
	defer memory.Close()
	for range 128 {
		if _, err := io.ReadFull(orRandom(x.Rand), memory.Bytes()); err != nil {
			return nil, msl.Failure(msl.ErrInternalException, x.Scheme(), err)
		}
		memory.Bytes()[0] >>= -bits & 7
		private := new(big.Int).SetBytes(memory.Bytes())
		if g.inside(private) {
			return private, nil
		}
		wipe(private)
	}
	return nil, msl.Failure(msl.ErrGenerateKeyError, x.Scheme(), errors.New("no private value in the group"))
}

func (g DHGroup) encode(private *big.Int) []byte {
	e := wire.NewEncoder(64 + g.P.BitLen()/5)
	e.Begin()
	e.String("parametersid", g.ID)
	e.Bytes("publickey", oneZero(new(big.Int).Exp(g.G, private, g.P).Bytes()))
	e.End()
	return e.Encoded()
}

// oneZero writes a number as MSL hashes and sends it: big-endian with exactly one leading
// zero byte, whatever its top bit. Zero is that byte only.
func oneZero(b []byte) []byte {
	return append([]byte{0}, bytes.TrimLeft(b, "\x00")...)
}

// agree makes session keys from the shared secret: its SHA-384 is the AES key and the
// HMAC key.
func (g DHGroup) agree(y, private *big.Int) (*msl.RawKeys, error) {
	z := new(big.Int).Exp(y, private, g.P)
	defer wipe(z)
	if z.Cmp(big.NewInt(1)) <= 0 { // in a group with small subgroups
		return nil, msl.Failure(msl.ErrKeyXInvalidPublicKey, "DIFFIE_HELLMAN", nil)
	}
	secret := lockedmem.New(1 + (z.BitLen()+7)/8)
	defer secret.Close()
	z.FillBytes(secret.Bytes())
	sum := sha512.Sum384(secret.Bytes())
	defer clear(sum[:])
	raw := msl.NewRawKeys()
	copy(raw.Signature(), sum[copy(raw.Encryption(), sum[:]):])
	return raw, nil
}

// wipe overwrites a number. Copies made by the arithmetic are out of reach.
func wipe(n *big.Int) { clear(n.Bits()[:cap(n.Bits())]) }

// Offer sends a new public value.
func (x *DiffieHellman) Offer(_ context.Context, from msl.Requester) (msl.Offer, error) {
	if len(x.Groups) == 0 {
		return nil, msl.Failure(msl.ErrUnknownKeyXParametersID, x.Scheme(), errors.New("no group configured"))
	}
	if err := imports(x.Store, x.Scheme()); err != nil {
		return nil, err
	}
	g, err := x.group(x.Groups[0].ID)
	if err != nil {
		return nil, err
	}
	private, err := x.draw(g)
	if err != nil {
		return nil, err
	}
	return &dhOffer{x: x, group: g, private: private, identity: from.Identity, keydata: g.encode(private)}, nil
}

type dhOffer struct {
	x        *DiffieHellman
	group    DHGroup
	private  *big.Int // nil after Close
	identity string
	keydata  []byte
}

func (o *dhOffer) KeyData() []byte { return o.keydata }

// Close overwrites the private value.
func (o *dhOffer) Close() error {
	if o.private != nil {
		wipe(o.private)
	}
	o.private = nil
	return nil
}

// Accept computes the session keys from the responder's public value.
func (o *dhOffer) Accept(_ context.Context, keydata []byte) (msl.Outcome, error) {
	f := wire.ParseFields(keydata)
	id, _, err := o.x.parse(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	if id != o.group.ID {
		return msl.Outcome{}, msl.Failure(msl.ErrKeyXResponseRequestMismatch, o.x.Scheme(), nil)
	}
	if o.private == nil {
		return msl.Outcome{}, msl.Failure(msl.ErrKeyXPrivateKeyMissing, o.x.Scheme(), nil)
	}
	_, y, err := o.x.read(f)
	if err != nil {
		return msl.Outcome{}, err
	}
	raw, err := o.group.agree(y, o.private)
	if err != nil {
		return msl.Outcome{}, err
	}
	return imported(o.x.Store, raw, o.identity)
}

// Resume restores the session keys.
func (x *DiffieHellman) Resume(_ context.Context, keep []byte) (*msl.SessionKeys, error) {
	return resumeSealed(x.Store, keep)
}
