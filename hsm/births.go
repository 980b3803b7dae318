package hsm

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// births makes session objects, and destroys those that the module did not protect as
// asked.
type births struct {
	*connection
	inspector *inspector
	templates map[keystore.Algorithm]sessionTemplates
}

// bornPair makes a pair, without those attributes, and fills in the handle of the private half.
func (b *births) bornPair(session uint, own *ref, a keystore.Algorithm, kd kind, omit []uint) (key crypto.PublicKey, err error) {
	half := own.publicHalf()
	public, private := kd.pair(a, false, nil)
	var m made
	m, half.handle, err = b.generatePair(session, kd.generate, public.identified(half.id), private.without(omit).identified(own.id))
	if err == nil {
		key, err = publicKey(b.library, session, half.handle, kd.keyType)
	}
	b.graves.discard(session, half)
	if err == nil && (m.sensitive != 1 || m.extractable != 0) {
		err = fmt.Errorf("hsm: the token did not apply the protection asked for to a new private key: %w", keystore.ErrWeakKey)
	}
	if err == nil {
		err = b.inspector.mayOmit(kd.has(omit))
	}
	m.epoch, m.id, m.origin = own.epoch, own.id, own.origin
	if err != nil {
		b.graves.discard(session, m.ref)
		return nil, err
	}
	*own = m.ref
	b.graves.count(m.ref, 1)
	return key, nil
}

// settle buries objects that may have been made. If the device is sound and the data
// was at fault, none was; objects of an older life died with it.
func (b *births) settle(doubts []ref, err error) {
	var e *Error
	now := b.life.Load()
	if now == nil || errors.As(err, &e) && e.sound {
		return
	}
	for _, d := range doubts {
		if d.epoch != now.epoch {
			continue
		}
		if b.graves.bury(d); d.id == "" {
			b.retire(d.origin)
		}
	}
}

// doubt notes an object of a call that failed: the module may have made it before the
// failure.
func doubt(all []ref, r ref) []ref {
	if r.handle != 0 {
		return all
	}
	return append(all, r)
}

// publicHalf has an identifier of its own: the halves go at different times.
func (r ref) publicHalf() ref {
	half := ref{epoch: r.epoch, origin: r.origin}
	if r.id != "" {
		half.id = r.id + "p"
	}
	return half
}

// unwrapKey makes the session object of a key, with the attributes that it must have. If it
// fails, it adds the object that may exist nevertheless to doubts.
func (b *births) unwrapKey(kek *object, f form, own *object, wrapped []byte, doubts *[]ref) error {
	template := b.templateOf(kek, own)
	return kek.use(b.anchors, func(session, parent uint, epoch uint64) error {
		id := b.graves.newID()
		m, err := f.unwrap(b.library, session, parent, wrapped, template.identified(id))
		m.epoch, m.id, m.origin = epoch, id, b.originOf(session)
		if err = b.born(session, &m, own.algorithm, own.locked, err); err != nil {
			*doubts = doubt(*doubts, m.ref)
			return err
		}
		if f.mechanism == pkcs11.CKM_RSA_PKCS_OAEP {
			if err = b.measure(session, m, own.algorithm, own.locked, doubts); err != nil {
				b.graves.count(m.ref, -1)
				b.graves.discard(session, m.ref)
				return err
			}
		}
		own.ref = m.ref
		return nil
	})
}

// templateOf is that of a key which kek unwraps.
func (b *births) templateOf(kek, own *object) template {
	t := b.templates[own.algorithm]
	switch {
	case own.locked && kek.sealer.reseals:
		return b.taken(t.trusting)
	case own.locked:
		return b.taken(t.unseal)
	case kek.sealer.reseals:
		return b.taken(t.leaving)
	}
	return t.unwrap
}

// born checks a new session object. It repairs an object that the module did not
// protect as the template says, and destroys it if that fails. err is the error of
// making it.
func (b *births) born(session uint, m *made, a keystore.Algorithm, locked bool, err error) error {
	own := m.ref
	if err == nil && (m.sensitive != 1 || locked && m.extractable != 0) {
		repair := template{}.flag(pkcs11.CKA_SENSITIVE, true)
		if locked {
			repair = repair.flag(pkcs11.CKA_EXTRACTABLE, false)
		}
		*m, err = b.set(session, own.handle, repair)
		m.ref = own
	}
	if err == nil && (m.sensitive != 1 || locked && m.extractable != 0) {
		err = fmt.Errorf("hsm: the token did not apply the protection asked for to a new key: %w", keystore.ErrWeakKey)
	}
	if err == nil {
		err = checkSize(*m, a)
	}
	if err != nil {
		b.graves.discard(session, m.ref)
		return err
	}
	b.graves.count(m.ref, 1)
	return nil
}

// checkSize refuses a key of another size, if the module reports the size.
func checkSize(m made, a keystore.Algorithm) error {
	if m.size > 0 && m.size != a.Size() {
		return fmt.Errorf("hsm: a key of %d bytes for %v: %w", m.size, a, keystore.ErrBadData)
	}
	return nil
}

// measure checks the size of a key unwrapped by RSA-OAEP if the module does not
// report it: by wrapping it if it may leave, and otherwise by trying its operation,
// which fails for a wrong size.
func (b *births) measure(session uint, m made, a keystore.Algorithm, locked bool, doubts *[]ref) error {
	switch {
	case m.size > 0:
		return nil
	case !locked:
		return b.measureWrapped(session, m, a, doubts)
	}
	out := make([]byte, 48)
	try := func(session uint, _ uint64) (err error) {
		switch a {
		case keystore.HMACSHA256, keystore.HMACSHA256Block:
			_, err = b.sign(session, m.handle, pkcs11.CKM_SHA256_HMAC, nil, out[:32])
		case keystore.AESCMAC128:
			_, err = b.sign(session, m.handle, pkcs11.CKM_AES_CMAC, nil, out[:16])
		default:
			_, err = b.encrypt(session, m.handle, pkcs11.CKM_AES_CBC, out[:16], out[16:32], out[32:48])
		}
		return err
	}
	if b.anchors == b.sessions { // the only one is taken
		return try(session, m.epoch)
	}
	return b.on(b.sessions, m.epoch, try) // a failure may leave an operation active
}

// measureWrapped wraps a key under one that is thrown away.
func (b *births) measureWrapped(session uint, m made, a keystore.Algorithm, doubts *[]ref) error {
	f, err := b.sealingForm()
	if err != nil {
		return err
	}
	id, out, n := b.graves.newID(), make([]byte, 96), 0
	ruler, err := b.generate(session, pkcs11.CKM_AES_KEY_GEN, b.templates[keystore.AESWrap128].generate.identified(id))
	if err == nil {
		n, err = b.wrap(session, f.mechanism, ruler.handle, m.handle, out[:f.iv], out[f.iv:])
	}
	ruler.epoch, ruler.id, ruler.origin = m.epoch, id, m.origin
	if err != nil {
		*doubts = doubt(*doubts, ruler.ref)
	}
	b.graves.discard(session, ruler.ref)
	switch size := n + f.iv - f.grows; {
	case err != nil:
		return err
	case size < 16 || size%8 != 0:
		return exactly("C_WrapKey", n, a.Size()+f.grows-f.iv, nil)
	case size != a.Size():
		return fmt.Errorf("hsm: a key of %d bytes for %v: %w", size, a, keystore.ErrBadData)
	}
	return nil
}
