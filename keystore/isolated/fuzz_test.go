package isolated

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
)

// A quickStore makes no key pairs, which takes seconds.
type quickStore struct{ *soft.Store }

func (s quickStore) Generate(a keystore.Algorithm) (keystore.Key, error) {
	if !a.Secret() {
		return nil, errors.ErrUnsupported
	}
	return s.Store.Generate(a)
}

func (s quickStore) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	if !a.Secret() {
		return keystore.Version{}, errors.ErrUnsupported
	}
	return s.Store.Create(label, a)
}

// FuzzRequest asks a server for anything. It always answers, with a message that is
// whole.
func FuzzRequest(f *testing.F) {
	store := quickStore{soft.New()}
	f.Cleanup(func() { store.Close() })
	for op := opGenerate; op <= opRenewPIN; op++ {
		if op == opShutdown || op == opGenerate {
			continue
		}
		f.Add(byte(op), []byte(nil))
		f.Add(byte(op), []byte(message{}.number(1).bytes(make([]byte, 16)).bytes([]byte("data"))))
	}
	f.Add(byte(opGenerate), []byte(message{}.number(uint64(keystore.AES128CBC))))
	f.Fuzz(func(t *testing.T, op byte, rest []byte) {
		if operation(op) == opShutdown {
			return
		}
		s := newServer(store)
		k, err := store.Generate(keystore.AES128CBC)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.keep(k); err != nil {
			t.Fatal(err)
		}
		answer := answerTo(s, append([]byte{op}, rest...), nil)
		err = judge(&fields{rest: answer[prefix:]}, func(f *fields) error {
			f.rest = nil // as far as it is understood
			return nil
		})
		if err != nil && answer[prefix] != failed {
			t.Errorf("operation %d answers %x: %v", op, answer, err)
		}
		for _, k := range s.keys {
			k.Close()
		}
	})
}

// FuzzAnswer reads any answer as those to the calls with the most fields.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(message{succeeded}.number(1).number(1).key(keyForm{1, keystore.AES128CBC, nil}).bytes(nil)))
	f.Add([]byte(message{failed}.number(3).text("no")))
	f.Add([]byte{0x30, 0}) // neither
	s := &Store{newSupervisor(Config{})}
	f.Fuzz(func(t *testing.T, answer []byte) {
		err := judge(&fields{rest: answer}, func(f *fields) error {
			for n := f.number(); n > 0 && !f.bad; n-- {
				if _, err := s.version(&process{}, "label", f); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && answer[0] != succeeded {
			t.Errorf("%x is not an error", answer)
		}
	})
}

// FuzzReport has a child tell anything of its calls: what is passed on makes sense.
func FuzzReport(f *testing.F) {
	r := &report{}
	r.add(keystore.Call{Function: "C_Sign", Queue: 1, Run: 2, Err: keystore.ErrBusy})
	r.add(keystore.Call{})
	f.Add([]byte(r.taken()))
	f.Add([]byte{1, 'C'})
	f.Fuzz(func(t *testing.T, calls []byte) {
		p := newProcess(&Config{}, nil, nil)
		p.tell(calls, func(c keystore.Call) {
			if c.Queue < 0 || c.Run < 0 || !isFunction(c.Function) {
				t.Errorf("%+v", c)
			}
		})
	})
}

func TestErrorsPass(t *testing.T) {
	for _, kind := range kinds {
		err := newChildError("text", kindsOf(errors.Join(kind, errors.New("other"))))
		for _, other := range kinds {
			if errors.Is(err, other) != (kind == other) {
				t.Errorf("an error of %v is one of %v: %t", kind, other, kind != other)
			}
		}
		if err.Error() != "text" {
			t.Errorf("its text is %q", err)
		}
	}
}

func TestOptionsPass(t *testing.T) {
	for _, opts := range []crypto.SignerOpts{
		nil, crypto.SHA256, crypto.SHA512,
		&rsa.PSSOptions{Hash: crypto.SHA384, SaltLength: rsa.PSSSaltLengthEqualsHash},
	} {
		f := &fields{rest: message{}.signerOptions(opts)}
		got := f.signerOptions()
		want, isPSS := opts.(*rsa.PSSOptions)
		if own, ok := got.(*rsa.PSSOptions); ok != isPSS || isPSS && *own != *want || !isPSS && got != opts || f.end() != nil {
			t.Errorf("%v is read as %v", opts, got)
		}
	}
	label := &rsa.OAEPOptions{Hash: crypto.SHA1, MGFHash: crypto.SHA256, Label: []byte("label")}
	f := &fields{rest: message{}.decrypterOptions(label)}
	got, ok := f.decrypterOptions().(*rsa.OAEPOptions)
	if !ok || got.Hash != label.Hash || got.MGFHash != label.MGFHash || !slices.Equal(got.Label, label.Label) || f.end() != nil {
		t.Errorf("%v is read as %v", label, got)
	}
}

// TestDamagedLanes has messages that a lane does not take.
func TestDamagedLanes(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"nothing":    {0, 0, 0, 0, 0},
		"too long":   {0xff, 0xff, 0xff, 0xff, 0, 1},
		"cut":        {0, 0, 0, 9, 0, 1},
		"two at one": {0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1},
		"no socket":  {0xff, 0xff, 0xff, 0xff, 0},
	} {
		from, to := lanes(t)
		if err := writePipe(from.out, bytes); err != nil {
			t.Fatal(err)
		}
		from.close()
		if got, err := to.receive(maxMessage); err == nil {
			t.Errorf("%s: %x", name, got)
		}
	}
}

// TestLongMessages sends more than a lane's buffer has room for.
func TestLongMessages(t *testing.T) {
	from, to := lanes(t)
	defer from.close()
	for _, size := range []int{0, 1, from.short - prefix - 2, from.short - prefix - 1, from.short, buffer - 8, buffer, 5 * buffer, 3} {
		sent := make(chan error, 1)
		go func() { sent <- from.send(begin(from.output, 7).bytes(make([]byte, size))) }()
		got, err := to.receive(maxMessage)
		if err != nil {
			t.Fatal(err)
		}
		f := &fields{rest: got}
		if first, body := f.byte(), f.bytes(); first != 7 || len(body) != size || f.end() != nil {
			t.Errorf("%d bytes of %d, sent %d", len(body), first, size)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		to.rest()
		if len(to.input) > buffer {
			t.Errorf("a lane keeps %d bytes", len(to.input))
		}
	}
}
