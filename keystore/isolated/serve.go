package isolated

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A server does in the child what the parent asks for.
type server struct {
	store keystore.Store
	*table
	rooms sync.Pool // of *room
}

// A table has the keys that the parent knows, by their handles.
type table struct {
	mu          sync.Mutex
	last        uint64
	keys        map[uint64]keystore.Key
	provisioned map[provisioned]uint64 // their handles: they are looked up again and again
}

// A provisioned is the name of one version of a key.
type provisioned struct {
	label   string
	version uint32
}

func newServer(store keystore.Store) *server {
	return &server{store, &table{keys: map[uint64]keystore.Key{}, provisioned: map[provisioned]uint64{}}, sync.Pool{New: newRoom}}
}

// serveLane answers the requests of one lane until it is closed.
func serveLane(s *server, l *lane) {
	defer l.close()
	for {
		request, err := l.request()
		if err != nil {
			return
		}
		answer := answerTo(s, request, l.output)
		if err := l.send(answer); err != nil {
			return
		}
		l.rest()
	}
}

// answerTo carries out one request and writes its answer over out.
func answerTo(s *server, request []byte, out message) message {
	f := &fields{rest: request}
	op := operation(f.byte())
	do := func(*server, *fields, message) (message, error) { return nil, errMalformed }
	if int(op) < len(handlers) && handlers[op] != nil {
		do = handlers[op]
	}
	m, err := do(s, f, begin(out, succeeded))
	if err != nil {
		return begin(out, failed).number(kindsOf(err)).text(err.Error())
	}
	return m
}

// keep gives a key its handle.
func (t *table) keep(k keystore.Key) (keyForm, error) {
	public, err := publicBytes(k)
	if err != nil {
		return keyForm{}, errors.Join(fmt.Errorf("isolated: %w", err), k.Close())
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.keys[t.last] = k
	return keyForm{t.last, k.Algorithm(), public}, nil
}

// keepVersion gives a provisioned key the handle that it had before, if any.
func (t *table) keepVersion(label string, v keystore.Version) (keyForm, error) {
	name := provisioned{label, v.Number}
	t.mu.Lock()
	defer t.mu.Unlock()
	public, err := publicBytes(v.Key)
	if err != nil {
		return keyForm{}, fmt.Errorf("isolated: %w", err)
	}
	handle, again := t.provisioned[name]
	if !again {
		t.last++
		handle = t.last
		t.provisioned[name] = handle
	}
	t.keys[handle] = v.Key
	return keyForm{handle, v.Key.Algorithm(), public}, nil
}

func (t *table) key(handle uint64) (keystore.Key, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, there := t.keys[handle]
	if !there {
		return nil, errClosed
	}
	return k, nil
}

// closeKey closes a key that is not a provisioned one.
func (t *table) closeKey(handle uint64) error {
	t.mu.Lock()
	k, there := t.keys[handle]
	delete(t.keys, handle)
	t.mu.Unlock()
	if !there {
		return nil
	}
	return k.Close()
}

// constant is what a key makes its mark of.
var constant = []byte("msl-hsm: the key behind a label\x00")

// markOf returns a value by which the parent knows a provisioned secret key again, after
// the child was replaced: a hash of what the key makes of a constant, or nothing.
func markOf(k keystore.Key) ([]byte, error) {
	mark, err := keystore.Computed(k, constant)
	if err != nil || mark == nil {
		return nil, err
	}
	sum := sha256.Sum256(mark)
	return sum[:], nil
}
