package msl_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
)

// A turning client has a first entity, which the server may refuse, and a second one.
type turning struct {
	*network
	client *msl.Client
	second msl.LocalEntity
	asked  []msl.ResponseCode
}

func newTurning(t *testing.T) *turning {
	n := softNetwork(t)
	first, second := n.pskEntity("first"), n.pskEntity("second")
	x := &turning{network: n, second: second}
	x.client = n.client(first, keyx.Bound{Offerer: &keyx.SymmetricOfferer{Keys: first.Keys}, Identity: "first"},
		keyx.Bound{Offerer: &keyx.SymmetricOfferer{Keys: second.Keys}, Identity: "second"})
	x.client.EntityAuth = func(_ context.Context, refused msl.LocalEntity, reason msl.ResponseCode) (msl.LocalEntity, error) {
		x.asked = append(x.asked, reason)
		if refused != msl.LocalEntity(first) && refused != msl.LocalEntity(second) {
			t.Errorf("refused %v", refused)
		}
		return x.second, nil
	}
	n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
		_, err := w.Write([]byte(m.Identity))
		return err
	}
	return x
}

// mustBe sends a message and expects the server to see that identity.
func (x *turning) mustBe(identity string, messages int) {
	x.t.Helper()
	r, data, err := send(x.t, x.client, secret("x"))
	if err != nil || data != identity || r.Messages != messages {
		x.t.Errorf("%q, %+v, %v: want %q after %d messages", data, r, err, identity, messages)
	}
}

// refuse has the server refuse the data of an entity with ENTITYDATA_REAUTH.
func (x *turning) refuse(identity string) {
	delete(x.directory, identity)
	x.server.Peers[0] = refusesOne{x.psk, identity}
}

// A refusesOne scheme knows all entities but one.
type refusesOne struct {
	msl.EntityScheme
	identity string
}

func (r refusesOne) Open(ctx context.Context, authdata []byte) (msl.Sender, func(), error) {
	s, release, err := r.EntityScheme.Open(ctx, authdata)
	if err != nil || s.Identity == r.identity {
		return msl.Sender{}, nil, msl.ErrX509CertExpired
	}
	return s, release, nil
}

// TestEntityAuth turns to another entity when the first one is refused, and stays with
// it, until that one is refused too and there is no other.
func TestEntityAuth(t *testing.T) {
	x := newTurning(t)
	x.mustBe("first", 2)
	x.server.Close() // forgets the sessions that it remembers
	x.server.Issuer.Keys[0].MAC = provision(t, x.store.(keystore.Admin), "another", keystore.HMACSHA256).(keystore.MAC)
	x.refuse("first")
	x.mustBe("second", 4) // the master token was refused first, and the second entity is asked for at once
	x.mustBe("second", 2)
	if len(x.asked) != 1 || x.asked[0] != msl.EntityReauth {
		t.Errorf("asked %v", x.asked)
	}

	x = newTurning(t)
	x.refuse("first")
	x.mustBe("second", 4)
	if len(x.asked) != 1 || x.asked[0] != msl.EntityDataReauth {
		t.Errorf("asked %v", x.asked)
	}
	x.mustBe("second", 2)
	if err := x.client.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.server.Peers[0] = refusesOne{x.psk, "second"}
	x.second = nil
	var answer *msl.PeerError
	if _, _, err := send(t, x.client, secret("x")); !errors.As(err, &answer) || answer.Response != msl.EntityDataReauth {
		t.Errorf("without another entity: %v", err)
	}
}

// TestEntityAuthGivesUp ends where the application has no other entity, fails, or is not
// asked, because nobody authenticated the refusal.
func TestEntityAuthGivesUp(t *testing.T) {
	failed := errors.New("no other")
	for name, prepare := range map[string]func(*turning){
		"no hook": func(x *turning) { x.client.EntityAuth = nil },
		"none": func(x *turning) {
			x.client.EntityAuth = func(context.Context, msl.LocalEntity, msl.ResponseCode) (msl.LocalEntity, error) { return nil, nil }
		},
		"an error": func(x *turning) {
			x.client.EntityAuth = func(context.Context, msl.LocalEntity, msl.ResponseCode) (msl.LocalEntity, error) {
				return x.second, failed
			}
		},
		"the same": func(x *turning) { x.client.EntityAuth = same },
		"of nobody": func(x *turning) {
			x.server.Local = &entityauth.NoneEntity{Identity: "server"}
			x.client.Peers = append(x.client.Peers, &entityauth.None{Directory: directory{"server": {Identity: "server", Scheme: "NONE"}}})
			x.client.EntityAuth = func(context.Context, msl.LocalEntity, msl.ResponseCode) (msl.LocalEntity, error) {
				x.t.Error("asked by nobody")
				return x.second, nil
			}
		},
	} {
		x := newTurning(t)
		prepare(x)
		x.refuse("first")
		_, _, err := send(t, x.client, secret("x"))
		var answer *msl.PeerError
		if !errors.As(err, &answer) || errors.Is(err, failed) != (name == "an error") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func same(_ context.Context, refused msl.LocalEntity, _ msl.ResponseCode) (msl.LocalEntity, error) {
	return refused, nil
}

// TestEntityAuthTogether asks once for all messages that are refused at the same time.
func TestEntityAuthTogether(t *testing.T) {
	x := newTurning(t)
	x.refuse("first")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, data, err := send(t, x.client, secret("x")); err != nil || data != "second" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
	wait.Wait()
	if len(x.asked) != 1 {
		t.Errorf("asked %v", x.asked)
	}
}

// TestEntityAuthWaits gives up a message that waits for the application's answer to
// another one.
func TestEntityAuthWaits(t *testing.T) {
	x := newTurning(t)
	x.refuse("first")
	asked, answer, done := make(chan struct{}), make(chan struct{}), make(chan error)
	x.client.EntityAuth = func(context.Context, msl.LocalEntity, msl.ResponseCode) (msl.LocalEntity, error) {
		close(asked)
		<-answer
		return x.second, nil
	}
	go func() {
		_, _, err := send(t, x.client, secret("x"))
		done <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	go func() {
		r, err := x.client.Do(ctx, secret("y"))
		if err == nil {
			r.Body.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a message waits longer than its context")
	}
	close(answer)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
