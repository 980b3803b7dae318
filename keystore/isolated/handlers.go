package isolated

import (
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// handlers carry out the operations. Each reads its fields, checks that there are no
// others, and only then acts.
var handlers = [...]func(*server, *fields, message) (message, error){
	opGenerate:    (*server).generate,
	opLookup:      (*server).lookup,
	opSeal:        (*server).seal,
	opUnseal:      (*server).unseal,
	opImport:      (*server).importKey,
	opWrapFor:     (*server).wrapFor,
	opRandom:      (*server).random,
	opCreate:      (*server).create,
	opList:        (*server).list,
	opDestroy:     (*server).destroy,
	opLive:        (*server).live,
	opShutdown:    (*server).shutdown,
	opClose:       (*server).close,
	opEncrypt:     (*server).encrypt,
	opDecrypt:     (*server).decrypt,
	opSum:         (*server).sum,
	opDoubt:       (*server).doubt,
	opWrap:        (*server).wrap,
	opWrapData:    (*server).wrapData,
	opUnwrap:      (*server).unwrap,
	opReveal:      (*server).reveal,
	opSign:        (*server).sign,
	opDecryptPair: (*server).decryptPair,
	opRefresh:     refresh,
	opSealWith:    sealWith,
	opOpenAll:     openAll,
	opSealAll:     sealAll,
	opRenewPIN:    renewPIN,
	opReseal:      reseal,
}

// maxRandom bounds the random bytes of one request.
const maxRandom = 1 << 20

// as returns the store or a key as what an operation needs.
func as[T any](what any) (T, error) {
	t, ok := what.(T)
	if !ok {
		return t, fmt.Errorf("isolated: a %T is not a %v: %w", what, reflect.TypeFor[T](), errors.ErrUnsupported)
	}
	return t, nil
}

// keyAs returns the key of a handle as what an operation needs.
func keyAs[T any](s *server, handle uint64) (t T, err error) {
	k, err := s.key(handle)
	if err != nil {
		return t, err
	}
	return as[T](k)
}

// storeFor returns the store as what an operation needs, after its last field.
func storeFor[T any](s *server, f *fields) (t T, err error) {
	if err := f.end(); err != nil {
		return t, err
	}
	return as[T](s.store)
}

// keyFor returns the key of a handle as what an operation needs, after its last field.
func keyFor[T any](s *server, f *fields, handle uint64) (t T, err error) {
	if err := f.end(); err != nil {
		return t, err
	}
	return keyAs[T](s, handle)
}

// made tells the parent of a new key.
func (t *table) made(m message, k keystore.Key, err error) (message, error) {
	if err != nil {
		return nil, err
	}
	form, err := t.keep(k)
	return m.key(form), err
}

func (s *server) generate(f *fields, m message) (message, error) {
	a := keystore.Algorithm(f.number())
	if err := f.end(); err != nil {
		return nil, err
	}
	k, err := s.store.Generate(a)
	return s.made(m, k, err)
}

func (s *server) lookup(f *fields, m message) (message, error) {
	label := f.text()
	if err := f.end(); err != nil {
		return nil, err
	}
	ring, err := s.store.Lookup(label)
	if err != nil {
		return nil, err
	}
	m = m.number(uint64(len(ring)))
	for _, v := range ring {
		if m, err = s.version(m, label, v); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// version tells the parent of a version of a provisioned key.
func (s *server) version(m message, label string, v keystore.Version) (message, error) {
	mark, err := markOf(v.Key)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	form, err := s.keepVersion(label, v)
	return m.number(uint64(v.Number)).key(form).bytes(mark), err
}

func (s *server) seal(f *fields, m message) (message, error) {
	handle, context := f.number(), f.bytes()
	if err := f.end(); err != nil {
		return nil, err
	}
	k, err := s.key(handle)
	if err != nil {
		return nil, err
	}
	blob, err := s.store.Seal(k, context)
	return m.bytes(blob), err
}

func (s *server) unseal(f *fields, m message) (message, error) {
	a, blob, context := keystore.Algorithm(f.number()), f.bytes(), f.bytes()
	if err := f.end(); err != nil {
		return nil, err
	}
	k, err := s.store.Unseal(a, blob, context)
	return s.made(m, k, err)
}

func (s *server) importKey(f *fields, m message) (message, error) {
	a, raw := keystore.Algorithm(f.number()), f.bytes()
	store, err := storeFor[keystore.Importer](s, f)
	if err != nil {
		return nil, err
	}
	k, err := store.Import(a, raw)
	return s.made(m, k, err)
}

func (s *server) wrapFor(f *fields, m message) (message, error) {
	handle, peer := f.number(), f.rsaPublic()
	store, err := storeFor[keystore.PeerWrapper](s, f)
	if err != nil {
		return nil, err
	}
	k, err := s.key(handle)
	if err != nil {
		return nil, err
	}
	wrapped, err := store.WrapFor(peer, k)
	return m.bytes(wrapped), err
}

func (s *server) random(f *fields, m message) (message, error) {
	n := f.number()
	if err := f.end(); err != nil || n > maxRandom {
		return nil, errMalformed
	}
	store, err := as[keystore.RandomSource](s.store)
	if err != nil {
		return nil, err
	}
	p := make([]byte, n)
	defer clear(p)
	err = store.Random(p)
	return m.bytes(p), err
}

func (s *server) create(f *fields, m message) (message, error) {
	label, a := f.text(), keystore.Algorithm(f.number())
	store, err := storeFor[keystore.Admin](s, f)
	if err != nil {
		return nil, err
	}
	v, err := store.Create(label, a)
	if err != nil {
		return nil, err
	}
	return s.version(m, label, v)
}

func (s *server) list(f *fields, m message) (message, error) {
	store, err := storeFor[keystore.Admin](s, f)
	if err != nil {
		return nil, err
	}
	all, err := store.List()
	if err != nil {
		return nil, err
	}
	text, err := encodeList(all)
	return m.bytes(text), err
}

func (s *server) destroy(f *fields, m message) (message, error) {
	label, version := f.text(), uint32(f.number())
	store, err := storeFor[keystore.Admin](s, f)
	if err != nil {
		return nil, err
	}
	return m, store.Destroy(label, version)
}

func (s *server) live(f *fields, m message) (message, error) {
	store, err := storeFor[interface {
		Live() (objects, sessions int)
	}](s, f)
	if err != nil {
		return nil, err
	}
	objects, sessions := store.Live()
	return m.number(uint64(objects)).number(uint64(sessions)), nil
}

func (s *server) shutdown(f *fields, m message) (message, error) {
	if err := f.end(); err != nil {
		return nil, err
	}
	return m, s.store.Close()
}

func (s *server) close(f *fields, m message) (message, error) {
	handle := f.number()
	if err := f.end(); err != nil {
		return nil, err
	}
	return m, s.closeKey(handle)
}

func (s *server) encrypt(f *fields, m message) (message, error) {
	handle, iv, plaintext := f.number(), f.bytes(), f.bytes()
	k, err := keyFor[keystore.Cipher](s, f, handle)
	if err != nil {
		return nil, err
	}
	ciphertext, err := k.Encrypt(iv, plaintext)
	return m.bytes(ciphertext), err
}

func (s *server) decrypt(f *fields, m message) (message, error) {
	handle, iv, ciphertext := f.number(), f.bytes(), f.bytes()
	k, err := keyFor[keystore.Cipher](s, f, handle)
	if err != nil {
		return nil, err
	}
	plaintext, err := k.Decrypt(iv, ciphertext)
	return m.bytes(plaintext), err
}

func (s *server) sum(f *fields, m message) (message, error) {
	handle, data := f.number(), f.bytes()
	k, err := keyFor[keystore.MAC](s, f, handle)
	if err != nil {
		return nil, err
	}
	sum, err := k.Sum(data)
	return m.bytes(sum), err
}

func (s *server) doubt(f *fields, m message) (message, error) {
	handle, data, sum := f.number(), f.bytes(), f.bytes()
	k, err := keyFor[keystore.MAC](s, f, handle)
	if err != nil {
		return nil, err
	}
	return m.bytes(nil), keystore.Doubt(k, data, sum)
}

func (s *server) wrap(f *fields, m message) (message, error) {
	handle, other := f.number(), f.number()
	k, err := keyFor[keystore.Wrapper](s, f, handle)
	if err != nil {
		return nil, err
	}
	victim, err := s.key(other)
	if err != nil {
		return nil, err
	}
	wrapped, err := k.Wrap(victim)
	return m.bytes(wrapped), err
}

func (s *server) wrapData(f *fields, m message) (message, error) {
	handle, raw := f.number(), f.bytes()
	k, err := keyFor[keystore.DataWrapper](s, f, handle)
	if err != nil {
		return nil, err
	}
	wrapped, err := k.WrapData(raw)
	return m.bytes(wrapped), err
}

func (s *server) unwrap(f *fields, m message) (message, error) {
	handle, a, wrapped := f.number(), keystore.Algorithm(f.number()), f.bytes()
	k, err := keyFor[keystore.Unwrapper](s, f, handle)
	if err != nil {
		return nil, err
	}
	made, err := k.Unwrap(a, wrapped)
	return s.made(m, made, err)
}

func (s *server) reveal(f *fields, m message) (message, error) {
	handle, wrapped := f.number(), f.bytes()
	k, err := keyFor[keystore.Revealer](s, f, handle)
	if err != nil {
		return nil, err
	}
	raw, err := k.Reveal(wrapped)
	defer clear(raw)
	return m.bytes(raw), err
}

func (s *server) sign(f *fields, m message) (message, error) {
	handle, digest, opts := f.number(), f.bytes(), f.signerOptions()
	k, err := keyFor[crypto.Signer](s, f, handle)
	if err != nil {
		return nil, err
	}
	signature, err := k.Sign(rand.Reader, digest, opts)
	return m.bytes(signature), err
}

func (s *server) decryptPair(f *fields, m message) (message, error) {
	handle, ciphertext, opts := f.number(), f.bytes(), f.decrypterOptions()
	k, err := keyFor[crypto.Decrypter](s, f, handle)
	if err != nil {
		return nil, err
	}
	plaintext, err := k.Decrypt(rand.Reader, ciphertext, opts)
	defer clear(plaintext)
	return m.bytes(plaintext), err
}
