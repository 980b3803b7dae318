package soft

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// The file is
//
//	magic ‖ version (1) ‖ salt (16) ‖ nonce (24) ‖ sealed records ‖ SHA-256 (32)
//
// The records are JSON under XChaCha20-Poly1305 with a key from Argon2id (RFC
// 9106, second recommended option) and everything up to the nonce as associated
// data. The version fixes all parameters. The checksum, over everything before
// it, tells a damaged file from a wrong passphrase.
const (
	fileMagic   = "msl-hsm soft keys\n"
	fileVersion = 1
	saltSize    = 16
	headerSize  = len(fileMagic) + 1 + saltSize
	minFile     = headerSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead + sha256.Size
	maxFile     = 64 << 20

	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4
)

// A file is where a store writes its rings.
type file struct {
	path   string
	header []byte            // magic, version, salt
	key    *lockedmem.Buffer // from the passphrase
	sum    [sha256.Size]byte // of what was last read or written
}

// A stored is the JSON form of a record.
type stored struct {
	Label     string             `json:"label"`
	Version   uint32             `json:"version"`
	Algorithm keystore.Algorithm `json:"algorithm"`
	Local     bool               `json:"local"`
	Secret    []byte             `json:"secret,omitempty"`
	PKCS8     []byte             `json:"pkcs8,omitempty"`
}

// Create makes a store whose provisioned keys are in a new file, encrypted
// under the passphrase. A file that is there already is
// [keystore.ErrExists].
func Create(path string, passphrase []byte) (*Store, error) { return Config{}.Create(path, passphrase) }

// Create is the function Create with the names of c.
func (c Config) Create(path string, passphrase []byte) (*Store, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("soft: empty passphrase: %w", keystore.ErrPIN)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("soft: %s: %w", path, keystore.ErrExists)
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	header := append(append([]byte(fileMagic), fileVersion), salt...)
	s := c.New()
	s.file = &file{path: path, header: header, key: deriveKey(passphrase, salt)}
	if err := s.file.create(s.rings); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Open opens the store in a file that Create made. A missing file is
// [keystore.ErrNotFound], a wrong passphrase [keystore.ErrPIN], a damaged file
// [keystore.ErrBadData].
//
// Every change is written to a new file that replaces the old one. A store that
// finds its file changed by another process writes nothing and answers
// [keystore.ErrBusy]; to change keys from two processes at the same moment is
// not safe.
func Open(path string, passphrase []byte) (*Store, error) { return Config{}.Open(path, passphrase) }

// Open is the function Open with the names of c. A file whose sealing keys have
// another prefix opens, and has no sealing keys until Create makes them.
func (c Config) Open(path string, passphrase []byte) (*Store, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	sum, err := check(path, data)
	if err != nil {
		return nil, err
	}
	header, body := data[:headerSize], data[headerSize:len(data)-sha256.Size]
	f := &file{path: path, header: header, sum: sum}
	f.key = deriveKey(passphrase, header[headerSize-saltSize:])
	rings, err := f.decrypt(body)
	if err != nil {
		f.wipe()
		return nil, err
	}
	return &Store{live: map[*key]struct{}{}, rings: rings, prefix: c.prefix(), random: c.random(), file: f}, nil
}

// deriveKey makes the key of a file. What package argon2 works with stays on the
// heap until it is collected.
func deriveKey(passphrase, salt []byte) *lockedmem.Buffer {
	return lockedmem.Move(argon2.IDKey(passphrase, salt, argonTime, argonMemory, argonThreads, chacha20poly1305.KeySize))
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("soft: %s: %w", path, keystore.ErrNotFound)
	}
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFile) {
		return nil, fmt.Errorf("soft: %s is not a key file: %w", path, keystore.ErrBadData)
	}
	if err != nil {
		return nil, fmt.Errorf("soft: %w: %w", keystore.ErrUnavailable, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("soft: %w: %w", keystore.ErrUnavailable, err)
	}
	return data, nil
}

// check looks at everything that does not need the passphrase.
func check(path string, data []byte) (sum [sha256.Size]byte, err error) {
	if !bytes.HasPrefix(data, []byte(fileMagic)) {
		return sum, fmt.Errorf("soft: %s is not a key file: %w", path, keystore.ErrBadData)
	}
	if len(data) < minFile {
		return sum, fmt.Errorf("soft: %s is cut off: %w", path, keystore.ErrBadData)
	}
	end := len(data) - sha256.Size
	sum = sha256.Sum256(data[:end])
	if !bytes.Equal(sum[:], data[end:]) {
		return sum, fmt.Errorf("soft: %s is damaged: %w", path, keystore.ErrBadData)
	}
	if v := data[len(fileMagic)]; v != fileVersion {
		return sum, fmt.Errorf("soft: %s has version %d, not %d: %w", path, v, fileVersion, errors.ErrUnsupported)
	}
	return sum, nil
}

func (f *file) decrypt(body []byte) (map[string][]record, error) {
	aead, err := chacha20poly1305.NewX(f.key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("soft: %w", err)
	}
	nonce, sealed := body[:aead.NonceSize()], body[aead.NonceSize():]
	text, err := aead.Open(nil, nonce, sealed, f.header)
	if err != nil {
		return nil, fmt.Errorf("soft: %s: wrong passphrase: %w", f.path, keystore.ErrPIN)
	}
	defer clear(text)
	var records []stored
	if err := json.Unmarshal(text, &records); err != nil {
		return nil, fmt.Errorf("soft: %s: %w: %w", f.path, keystore.ErrBadData, err)
	}
	rings := map[string][]record{}
	for _, st := range records {
		r, err := st.record()
		if err != nil {
			return nil, fmt.Errorf("soft: %s: key %q: %w", f.path, st.Label, err)
		}
		rings[r.Label] = append(rings[r.Label], r)
	}
	return rings, nil
}

func (st stored) record() (r record, err error) {
	defer clear(st.Secret)
	defer clear(st.PKCS8)
	r = record{Label: st.Label, Version: st.Version, Algorithm: st.Algorithm, Local: st.Local}
	if st.Algorithm.Secret() {
		r.m, err = secret(st.Algorithm, st.Secret)
		return r, err
	}
	private, err := x509.ParsePKCS8PrivateKey(st.PKCS8)
	if err != nil {
		return r, fmt.Errorf("%w: %w", keystore.ErrBadData, err)
	}
	signer, _ := private.(crypto.Signer)
	r.m, err = pair(st.Algorithm, signer)
	return r, err
}

func (r record) stored() (st stored, err error) {
	r.m.mu.RLock()
	defer r.m.mu.RUnlock()
	st = stored{Label: r.Label, Version: r.Version, Algorithm: r.Algorithm, Local: r.Local}
	if r.m.pair == nil {
		st.Secret = bytes.Clone(r.m.raw)
		return st, nil
	}
	st.PKCS8, err = x509.MarshalPKCS8PrivateKey(r.m.pair)
	return st, err
}

// encrypt returns the bytes of a file that holds the rings.
func (f *file) encrypt(rings map[string][]record) ([]byte, error) {
	var records []stored
	defer func() {
		for _, st := range records {
			clear(st.Secret)
			clear(st.PKCS8)
		}
	}()
	for _, ring := range rings {
		for _, r := range ring {
			st, err := r.stored()
			if err != nil {
				return nil, fmt.Errorf("soft: write %s: %w", f.path, err)
			}
			records = append(records, st)
		}
	}
	text, err := json.Marshal(records)
	if err != nil {
		return nil, fmt.Errorf("soft: write %s: %w", f.path, err)
	}
	defer clear(text)
	aead, err := chacha20poly1305.NewX(f.key.Bytes())
	if err != nil {
		return nil, fmt.Errorf("soft: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce) // never fails
	data := append(bytes.Clone(f.header), nonce...)
	data = aead.Seal(data, nonce, text, f.header)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

// create writes the first version of the file, unless there is one.
func (f *file) create(rings map[string][]record) error {
	err := f.write(rings, atomicfile.Create)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("soft: %s: %w", f.path, keystore.ErrExists)
	}
	return err
}

// save replaces the file. Without one there is nothing to do.
func (f *file) save(rings map[string][]record) error {
	if f == nil {
		return nil
	}
	data, err := read(f.path)
	if err != nil {
		return err
	}
	if sum, err := check(f.path, data); err != nil {
		return err
	} else if sum != f.sum {
		return fmt.Errorf("soft: %s was changed by another process, open it again: %w", f.path, keystore.ErrBusy)
	}
	return f.write(rings, atomicfile.Replace)
}

func (f *file) write(rings map[string][]record, put func(path string, data []byte, mode fs.FileMode) error) error {
	data, err := f.encrypt(rings)
	if err != nil {
		return err
	}
	err = put(f.path, data, atomicfile.DefaultMode)
	if err == nil || errors.Is(err, atomicfile.ErrUnsynced) {
		f.sum = sha256.Sum256(data[:len(data)-sha256.Size])
	}
	if err != nil {
		return fmt.Errorf("soft: %w", err)
	}
	return nil
}

func (f *file) wipe() {
	if f != nil {
		f.key.Close()
	}
}
