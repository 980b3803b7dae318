package soft

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/fips140"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// The file is
//
//	magic ‖ version (1) ‖ header length (2) ‖ header ‖ nonce (24 or 12) ‖ encrypted records ‖ SHA-256 (32)
//
// The header is JSON: the names of the cipher and of the function that makes its key of
// the passphrase, with salt and cost. The records are JSON, too; all before the nonce is
// their associated data. The checksum, over everything before it, tells a damaged file
// from a wrong passphrase.
//
// In version 1 a salt of 16 bytes was in place of length and header, and all else was
// fixed. Such a file is read, and becomes version 2 when its keys change.
const (
	fileMagic = "msl-hsm soft keys\n"
	maxFile   = 64 << 20
)

// A Cost is what it takes to try a passphrase on a file: the parameters of Argon2id (RFC
// 9106) or, in the FIPS mode of Go, of PBKDF2. The file states it, and nobody can change it
// without the passphrase. It must be at least what OWASP's Password Storage Cheat Sheet
// recommends (46, 19, 12 or 9 MiB in one to four passes, 7 MiB in more; 600,000 iterations;
// a file of an earlier version may have 35 MiB in all passes), and at most 1 GiB of memory and 16 GiB in all passes, or 100 million iterations.
type Cost = stretch.Cost

// A file is where a store writes its rings.
type file struct {
	path string
	lock lock              // of what is written next
	sum  [sha256.Size]byte // of what was last read or written
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

// Create makes a store whose provisioned keys are in a new file, encrypted under the
// passphrase. If the file already exists, the error is [keystore.ErrExists].
func Create(path string, passphrase []byte) (*Store, error) { return Config{}.Create(path, passphrase) }

// Create is the function Create with the names of c.
func (c Config) Create(path string, passphrase []byte) (*Store, error) {
	if len(passphrase) == 0 {
		return nil, keystore.NoPINf("soft: empty passphrase")
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("soft: %s: %w", path, keystore.ErrExists)
	}
	cost, err := c.cost(stretch.Recommended())
	if err != nil {
		return nil, err
	}
	s := c.New()
	s.file = &file{path: path, lock: newHeader(cost).lock(passphrase)}
	if err := s.file.create(s.rings); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Open opens the store in a file that Create made. A missing file is
// [keystore.ErrNotFound], a wrong passphrase [keystore.ErrPIN], a damaged file
// [keystore.ErrBadData], and one whose passphrase is guessed too easily
// [keystore.ErrWeakKey].
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
	h, begin, records, err := split(path, data[:len(data)-sha256.Size])
	if err != nil {
		return nil, err
	}
	if fips140.Enforced() && h.Cipher != aes256gcm {
		return nil, fmt.Errorf("soft: %s is encrypted with %s, which GODEBUG=fips140=only does not permit: make or destroy a key of it once, under GODEBUG=fips140=on: %w", path, h.Cipher, errors.ErrUnsupported)
	}
	if err := c.permits(h.Cost, h.Cost.CheckKept()); errors.Is(err, keystore.ErrWeakKey) {
		return nil, fmt.Errorf("soft: %s is a file for tests, make keys in another one: %w", path, err)
	} else if err != nil {
		return nil, fmt.Errorf("soft: %s: %w", path, err)
	}
	f := &file{path: path, lock: h.lock(passphrase), sum: sum}
	rings, err := f.decrypt(begin, records)
	if err == nil {
		err = f.relock(c, passphrase)
	}
	if err != nil {
		f.wipe()
		return nil, err
	}
	return &Store{live: map[*key]struct{}{}, rings: rings, prefix: c.prefix(), random: c.random(), others: c.Others, file: f}, nil
}

// Look returns the error of a file that [Open] refuses whatever the passphrase is, because it
// is missing ([keystore.ErrNotFound]), cannot be read ([keystore.ErrUnavailable]), is damaged or
// is not a key file ([keystore.ErrBadData]). It is for a caller that would otherwise ask for the passphrase.
func Look(path string) error {
	data, err := read(path)
	if err == nil {
		_, err = check(path, data)
	}
	return err
}

// permits refuses a cost at which a passphrase is guessed too easily, and one that takes
// too much memory or time, as err says. Nobody can change the cost of a file without its
// passphrase: the first is against files that were made for tests.
func (c Config) permits(cost Cost, err error) error {
	switch {
	case err == nil, c.CheapForTests && cost.Possible():
		return nil
	case cost.Possible():
		return fmt.Errorf("%w: %w", err, keystore.ErrWeakKey)
	default:
		return fmt.Errorf("%w: %w", err, keystore.ErrBadData)
	}
}

// cost returns the configured cost, or the one given if none is. In the FIPS mode of Go it
// is one that is approved.
func (c Config) cost(otherwise Cost) (Cost, error) {
	wanted := cmp.Or(c.Cost, otherwise)
	if fips140.Enabled() && !wanted.Approved() {
		return stretch.Recommended(), nil
	}
	fault := wanted.Check()
	if c.Cost == (Cost{}) {
		fault = wanted.CheckKept()
	}
	if err := c.permits(wanted, fault); err != nil {
		return wanted, fmt.Errorf("soft: the cost of a passphrase: %w", err)
	}
	return wanted, nil
}

// relock makes another key for what is written next if another cost is configured.
func (f *file) relock(c Config, passphrase []byte) error {
	cost, err := c.cost(f.lock.Cost)
	if err != nil || cost == f.lock.Cost {
		return err
	}
	f.lock.wipe()
	f.lock = newHeader(cost).lock(passphrase)
	return nil
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
	data, err := plainfile.Read(path)
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
	if len(data) <= len(fileMagic)+sha256.Size {
		return sum, fmt.Errorf("soft: %s is cut off: %w", path, keystore.ErrBadData)
	}
	end := len(data) - sha256.Size
	sum = sha256.Sum256(data[:end])
	if !bytes.Equal(sum[:], data[end:]) {
		return sum, fmt.Errorf("soft: %s is damaged: %w", path, keystore.ErrBadData)
	}
	return sum, nil
}

func (f *file) decrypt(begin, encrypted []byte) (map[string][]record, error) {
	text, err := f.lock.open(f.path, begin, encrypted)
	if err != nil {
		return nil, err
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
	data, err := f.lock.seal(text)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...), nil
}

// create writes the first version of the file, unless there is one.
func (f *file) create(rings map[string][]record) error {
	err := f.write(rings, atomicfile.Create)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("soft: %s was made by another process meanwhile, try again: %w", f.path, keystore.ErrExists)
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
		f.lock.wipe()
	}
}
