package modulecheck

import (
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ThalesIgnite/crypto11"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/keystoretest"
)

// others is crypto11 at work: it uses the pairs that were made by package hsm, and makes
// some of its own. It finalizes the module under everyone at the end, so it has this
// process for itself.
func (s *step) others() error {
	c, err := s.configure()
	if err != nil {
		return err
	}
	for _, p := range s.Pairs {
		name := secondOpinion + "/used-by-crypto11/" + p.Algorithm.String()
		s.write(event{Begins: name})
		s.of(name, useOther(c, p))
	}
	for _, a := range pairKinds() {
		name := secondOpinion + "/made-by-crypto11/" + a.String()
		s.write(event{Begins: name})
		p, err := makeOther(c, a)
		if s.of(name, err); err == nil {
			s.write(event{Pairs: []pair{p}})
		}
	}
	return c.Close()
}

// configure opens the token by crypto11, which takes one name of it, and the PIN as a
// string.
func (s *step) configure() (*crypto11.Context, error) {
	uri, err := hsm.ParseURI(s.URI)
	if err != nil {
		return nil, err
	}
	c := &crypto11.Config{Path: uri.ModulePath, TokenLabel: uri.Token, MaxSessions: 4, LoginNotSupported: s.pin == nil}
	if uri.Serial != "" {
		c.TokenLabel, c.TokenSerial = "", uri.Serial
	}
	if s.pin != nil {
		c.Pin = string(s.pin.Bytes())
	}
	return crypto11.Configure(c)
}

func useOther(c *crypto11.Context, p pair) error {
	k, err := c.FindKeyPair(nil, []byte(p.Label))
	if err != nil {
		return err
	}
	if k == nil {
		return errors.New("crypto11 does not find the key pair")
	}
	return p.use(k)
}

// makeOther makes a pair that has one purpose, as pairs of package hsm have: else the
// token gives it others by default.
func makeOther(c *crypto11.Context, a keystore.Algorithm) (pair, error) {
	label := keystoretest.Prefix + "crypto11-" + a.String()
	id := make([]byte, 8)
	rand.Read(id)
	public, err := crypto11.NewAttributeSetWithIDAndLabel(id, []byte(label))
	if err != nil {
		return pair{}, err
	}
	private := public.Copy()
	decrypts := a == keystore.RSADecrypt2048
	for attribute, value := range map[crypto11.AttributeType]bool{
		crypto11.CkaUnwrap: false, crypto11.CkaSign: !decrypts, crypto11.CkaDecrypt: decrypts,
	} {
		if err := private.Set(attribute, value); err != nil {
			return pair{}, err
		}
	}
	var k any
	switch a {
	case keystore.ECDSAP256:
		k, err = c.GenerateECDSAKeyPairWithAttributes(public, private, elliptic.P256())
	case keystore.ECDSAP384:
		k, err = c.GenerateECDSAKeyPairWithAttributes(public, private, elliptic.P384())
	case keystore.RSASign2048, keystore.RSADecrypt2048:
		k, err = c.GenerateRSAKeyPairWithAttributes(public, private, a.Size())
	default:
		err = fmt.Errorf("modulecheck: %v: %w", a, errors.ErrUnsupported)
	}
	if err != nil {
		return pair{}, err
	}
	return describe(label, a, k)
}
