//go:build cgo && !nopkcs11 && linux

package cli

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestProveCustody searches the whole readable memory of a server, while it serves, for the
// session keys and the pre-shared keys that its devices have. scripts/prove-custody runs it
// with more exchanges, and with the module in the server, too.
func TestProveCustody(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t) // which has a memory of its own to search
	cases := []custodyCase{{"sealed", true, none}, {"shared", true, some}}
	exchanges := 60
	if n, err := strconv.Atoi(os.Getenv("MSL_PROVE_EXCHANGES")); err == nil {
		exchanges, cases = n, append(cases, custodyCase{"sealed", false, whatever})
	}
	t.Logf("%-7s %-17s %-17s %9s %5s %8s %13s %16s", "custody", "module", "searched", "exchanges", "keys", "memory", "session keys", "pre-shared keys")
	for _, c := range cases {
		t.Run(c.custody, func(t *testing.T) { c.prove(t, exchanges) })
	}
}

// A custodyCase is a server, and how many session keys may be found in its memory.
type custodyCase struct {
	custody  string
	isolated bool
	allowed  func(found int) bool
}

func none(found int) bool { return found == 0 }

func some(found int) bool { return found > 0 }

// whatever is for a module in the server, which may leave keys there.
func whatever(int) bool { return true }

// prove searches three times, and up to 30 times for what must be there and was not found
// yet.
func (c custodyCase) prove(t *testing.T, exchanges int) {
	p := newProof(t, c.custody, c.isolated)
	keys, end := p.serve(exchanges)
	defer end()
	var found finding
	for n := 0; n < 3 || n < 30 && !c.allowed(found.session) && found.session == 0; n++ {
		f, err := p.search(p.server.Process.Pid, keys)
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("the memory of another process cannot be read here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		found.add(f)
	}
	where := "the server"
	if c.isolated {
		where = "a child process"
	}
	tell := func(searched string, f finding) {
		t.Logf("%-7s %-17s %-17s %9d %5d %4d MiB %13d %16d", c.custody, where, searched, exchanges, len(keys)+3, f.memory>>20, f.session, f.preShared)
	}
	tell("the server", found)
	if !c.allowed(found.session) || found.preShared > 0 {
		t.Errorf("%d session keys and %d pre-shared keys found", found.session, found.preShared)
	}
	child, err := childOf(p.server.Process.Pid)
	if err != nil {
		return
	}
	if f, err := p.search(child, keys); err == nil { // only root can read it
		tell("the child process", f)
	}
}

// A proof is a server, and the device whose keys are searched for.
type proof struct {
	*testing.T
	server *child
	url    string
	psk    *entityauth.PSKFile
	public crypto.PublicKey
}

// newProof starts a server that remembers one session, so that it opens the keys of the
// others with each message.
func newProof(t *testing.T, custody string, isolated bool) *proof {
	t.Helper()
	token := softhsm.Temp(t)
	dir := t.TempDir()
	uri := hsm.URI{Token: token.Label, ModulePath: token.Module}
	write(t, dir, "c.yaml", fmt.Sprintf("keystore: {uri: %q, pin: %q, isolate: %t}\nserver: {state: s.db, listen: \"127.0.0.1:0\", custody: %s, limits: {sessions: 1}}\n",
		uri.String(), string(token.PIN), isolated, custody))
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command("msl-hsm", append(args, "--config", "c.yaml")...)
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("key", "create", "--set", "server")
	run("entity", "add", "camera", "--generate-psk", "camera.psk")
	p := &proof{T: t}
	block, _ := pem.Decode([]byte(run("key", "show", "msl-identity", "--public")))
	var err, errPSK error
	p.public, err = x509.ParsePKIXPublicKey(block.Bytes)
	p.psk, errPSK = entityauth.ReadPSKFile(filepath.Join(dir, "camera.psk"), true)
	if err := errors.Join(err, errPSK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.psk.Wipe)
	p.server = launch(t, dir, "serve", "--config", "c.yaml", "--ready-file", "ready")
	ready := filepath.Join(dir, "ready")
	await(t, "the server", func() bool { _, err := os.Stat(ready); return err == nil })
	text, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	p.url = strings.TrimSpace(string(text))
	return p
}

// sessionsOfProof is how many sessions share the exchanges.
const sessionsOfProof = 6

// serve makes sessions, sends messages in all of them, and returns the keys of the
// sessions, and the function that ends the devices. They keep sending until then.
func (p *proof) serve(exchanges int) (keys [][]byte, end func()) {
	p.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var devices sync.WaitGroup
	for range sessionsOfProof {
		device := newSpy(p)
		p.send(ctx, device.client)
		for range exchanges/sessionsOfProof - 1 {
			p.send(ctx, device.client)
		}
		keys = append(keys, device.keys...)
		devices.Go(func() {
			for ctx.Err() == nil {
				p.send(ctx, device.client)
			}
			device.client.Close()
			device.store.Close()
		})
	}
	if len(keys) < 2*sessionsOfProof {
		p.Fatalf("%d keys of %d sessions", len(keys), sessionsOfProof)
	}
	return keys, func() {
		cancel()
		devices.Wait()
	}
}

func (p *proof) send(ctx context.Context, c *msl.Client) {
	p.Helper()
	r, err := c.Do(ctx, &msl.Request{Encrypted: true, Authenticated: true, RequestTokens: true, Body: msl.BytesBody([]byte("hello"))})
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
		err = errors.Join(err, r.Body.Close())
	}
	if err != nil && ctx.Err() == nil {
		p.Error(err)
	}
}

// A spy is a device that looks at its session keys.
type spy struct {
	store    *soft.Store
	client   *msl.Client
	unwraps  keystore.Unwrapper
	revealer keystore.Revealer
	keys     [][]byte
}

func newSpy(p *proof) *spy {
	p.Helper()
	s := &spy{store: soft.New()}
	provision := func(label string, a keystore.Algorithm, raw []byte) keystore.Key {
		v, err := s.store.Provision(label, a, raw)
		if err != nil {
			p.Fatal(err)
		}
		return v.Key
	}
	encryption := provision("encryption", keystore.AES128CBC, p.psk.Encryption).(keystore.Cipher)
	mac := provision("mac", keystore.HMACSHA256, p.psk.MAC).(keystore.MAC)
	s.unwraps = provision("wrapping", keystore.AESUnwrap128, p.psk.Wrapping).(keystore.Unwrapper)
	s.revealer = provision("revealing", keystore.AESReveal128, p.psk.Wrapping).(keystore.Revealer)
	set := entityauth.NewKeySet(encryption, mac, s)
	peer, err := entityauth.Known("server", p.public)
	if err != nil {
		p.Fatal(err)
	}
	s.client = &msl.Client{
		Local: &entityauth.PSKEntity{Identity: p.psk.Identity, Keys: set}, Peers: []msl.EntityScheme{peer},
		KeyExchanges: []msl.Offerer{&keyx.SymmetricOfferer{Keys: set}}, Transport: &mslhttp.Transport{URL: p.url},
	}
	return s
}

// Algorithm is that of the wrapping key.
func (s *spy) Algorithm() keystore.Algorithm { return keystore.AESUnwrap128 }

// Close leaves the keys to their store.
func (s *spy) Close() error { return nil }

// Unwrap looks at the key.
func (s *spy) Unwrap(a keystore.Algorithm, wrapped []byte) (keystore.Key, error) {
	raw, err := s.revealer.Reveal(wrapped)
	if err != nil {
		return nil, err
	}
	s.keys = append(s.keys, raw)
	return s.unwraps.Unwrap(a, wrapped)
}

// A finding is what a search found.
type finding struct {
	memory             int64 // bytes
	session, preShared int   // different keys
}

// add takes the larger numbers.
func (f *finding) add(other finding) {
	f.memory = max(f.memory, other.memory)
	f.session, f.preShared = max(f.session, other.session), max(f.preShared, other.preShared)
}

// search looks for the keys in all that can be read of the memory of a process (proc(5)).
func (p *proof) search(pid int, keys [][]byte) (f finding, err error) {
	all := append([][]byte{p.psk.Encryption, p.psk.MAC, p.psk.Wrapping}, keys...)
	where, seen := wordsOf(all), make([]bool, len(all))
	f.memory, err = scan(pid, "r", overlap, func(part []byte) { where.find(part, seen) })
	for i, is := range seen {
		switch {
		case is && i < 3:
			f.preShared++
		case is:
			f.session++
		}
	}
	return f, err
}

const wordSize = 8

// words are all runs of wordSize bytes in what is searched for. As that has 2*wordSize-1
// bytes or more, one of them is at a multiple of wordSize, wherever it is.
type words struct {
	spots map[uint64][]spot
	known [1 << 16]bool // by mixed: to look here first costs less
}

// mixed is the same for few of the words.
func mixed(word uint64) uint16 { return uint16(word * 0x9e3779b97f4a7c15 >> 48) }

// A spot is where a word is in a form of a key.
type spot struct {
	form  []byte
	index int // of the key
	at    int
}

// wordsOf has the words of keys, and of their text as tokens of the reference form have them.
func wordsOf(keys [][]byte) *words {
	all := &words{spots: map[uint64][]spot{}}
	for i, key := range keys {
		for _, form := range [][]byte{key, []byte(base64.StdEncoding.EncodeToString(key))} {
			for at := range len(form) - wordSize + 1 {
				word := binary.NativeEndian.Uint64(form[at:])
				all.spots[word] = append(all.spots[word], spot{form, i, at})
				all.known[mixed(word)] = true
			}
		}
	}
	return all
}

// find marks the keys that are in part.
func (w *words) find(part []byte, seen []bool) {
	for at := 0; at+wordSize <= len(part); at += wordSize {
		word := binary.NativeEndian.Uint64(part[at:])
		if !w.known[mixed(word)] { // most of the memory
			continue
		}
		for _, p := range w.spots[word] {
			if at >= p.at && bytes.HasPrefix(part[at-p.at:], p.form) {
				seen[p.index] = true
			}
		}
	}
}

// TestWords has keys found wherever they are.
func TestWords(t *testing.T) {
	keys := [][]byte{[]byte("sixteen bytes in"), []byte("a key that has 32 bytes in total")}
	text := []byte(base64.StdEncoding.EncodeToString(keys[1]))
	for at := range 2 * wordSize {
		for name, c := range map[string]struct {
			form []byte
			want []bool
		}{
			"short": {keys[0], []bool{true, false}}, "long": {keys[1], []bool{false, true}}, "text": {text, []bool{false, true}},
			"cut": {text[:len(text)-1], []bool{false, false}}, "late": {text[1:], []bool{false, false}},
		} {
			seen := make([]bool, 2)
			wordsOf(keys).find(append(make([]byte, at), c.form...), seen)
			if !slices.Equal(seen, c.want) {
				t.Errorf("%s at %d: found %t", name, at, seen)
			}
		}
	}
}

// overlap is longer than any key, so that no key is cut at the end of a part.
const overlap = 64
