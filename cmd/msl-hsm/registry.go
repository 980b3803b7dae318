package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/rpc"
	"os"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// A registry is who may talk to the server: the state file itself or, while a
// server has it open, that server.
type registry interface {
	AddEntity(state.EntityRecord) error
	RemoveEntity(identity string) error
	RevokeEntity(identity string) error
	UnrevokeEntity(identity string) error
	Entities() ([]state.EntityRecord, error)
	AddUser(name string, password []byte) error
	RemoveUser(name string) error
	SetPassword(name string, password []byte) error
	RevokeUser(name string) error
	UnrevokeUser(name string) error
	Users() ([]state.UserRecord, error)
	io.Closer
}

// openRegistry reaches a running server by the socket beside its state file, and
// opens the file where there is none.
func (c *config) openRegistry(flag string) (registry, error) {
	path, err := c.statePath(flag)
	if err != nil {
		return nil, err
	}
	if remote, err := dialServer(path); remote != nil || err != nil {
		return remoteRegistry{remote}, err
	}
	return c.openState("")
}

func socketOf(state string) string { return state + ".sock" }

// A Change is what a set-up command asks of a running server.
type Change struct {
	Verb   string
	Name   string
	Entity state.EntityRecord
	Secret []byte
}

// A Registrar does it. Whoever may use the socket may use the file: it is for
// the same owner alone.
type Registrar struct{ state *bolt.Server }

// Apply makes a change.
func (r *Registrar) Apply(c Change, _ *struct{}) error {
	defer clear(c.Secret)
	switch c.Verb {
	case "add entity":
		return r.state.AddEntity(c.Entity)
	case "remove entity":
		return r.state.RemoveEntity(c.Name)
	case "revoke entity":
		return r.state.RevokeEntity(c.Name)
	case "unrevoke entity":
		return r.state.UnrevokeEntity(c.Name)
	case "add user":
		return r.state.AddUser(c.Name, c.Secret)
	case "remove user":
		return r.state.RemoveUser(c.Name)
	case "set password":
		return r.state.SetPassword(c.Name, c.Secret)
	case "revoke user":
		return r.state.RevokeUser(c.Name)
	case "unrevoke user":
		return r.state.UnrevokeUser(c.Name)
	}
	return fmt.Errorf("the server does not know how to %s: it runs another version", c.Verb)
}

// Entities lists the entities.
func (r *Registrar) Entities(_ struct{}, all *[]state.EntityRecord) (err error) {
	*all, err = r.state.Entities()
	return err
}

// Users lists the users.
func (r *Registrar) Users(_ struct{}, all *[]state.UserRecord) (err error) {
	*all, err = r.state.Users()
	return err
}

// administer lets set-up commands reach the state of a running server. Where the
// socket cannot be made, the server is as good without.
func administer(path string, log *slog.Logger, services ...any) io.Closer {
	socket := socketOf(path)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("entities and users cannot be changed while this server runs", "error", err)
		return io.NopCloser(nil)
	}
	l, err := listenPrivately(socket)
	if err != nil {
		log.Warn("entities and users cannot be changed while this server runs", "error", err)
		return io.NopCloser(nil)
	}
	server := rpc.NewServer()
	for _, s := range services {
		if err := server.Register(s); err != nil {
			log.Error("administration", "error", err)
			return l
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go server.ServeConn(c)
		}
	}()
	return l
}

// A remoteRegistry is a running server.
type remoteRegistry struct{ *runningServer }

func (r remoteRegistry) apply(c Change) error {
	return fromServer(r.Call("Registrar.Apply", c, new(struct{})), state.ErrUnknown, state.ErrExists, state.ErrRevoked, state.ErrNotRevoked)
}

func (r remoteRegistry) AddEntity(e state.EntityRecord) error {
	return r.apply(Change{Verb: "add entity", Entity: e})
}

func (r remoteRegistry) RemoveEntity(name string) error {
	return r.apply(Change{Verb: "remove entity", Name: name})
}

func (r remoteRegistry) RevokeEntity(name string) error {
	return r.apply(Change{Verb: "revoke entity", Name: name})
}

func (r remoteRegistry) UnrevokeEntity(name string) error {
	return r.apply(Change{Verb: "unrevoke entity", Name: name})
}

func (r remoteRegistry) AddUser(name string, password []byte) error {
	return r.apply(Change{Verb: "add user", Name: name, Secret: password})
}

func (r remoteRegistry) RemoveUser(name string) error {
	return r.apply(Change{Verb: "remove user", Name: name})
}

func (r remoteRegistry) SetPassword(name string, password []byte) error {
	return r.apply(Change{Verb: "set password", Name: name, Secret: password})
}

func (r remoteRegistry) RevokeUser(name string) error {
	return r.apply(Change{Verb: "revoke user", Name: name})
}

func (r remoteRegistry) UnrevokeUser(name string) error {
	return r.apply(Change{Verb: "unrevoke user", Name: name})
}

func (r remoteRegistry) Entities() (all []state.EntityRecord, err error) {
	err = fromServer(r.Call("Registrar.Entities", struct{}{}, &all))
	return all, err
}

func (r remoteRegistry) Users() (all []state.UserRecord, err error) {
	err = fromServer(r.Call("Registrar.Users", struct{}{}, &all))
	return all, err
}

// listenPrivately makes a socket that is for this user alone from the start: a
// process that connects to one needs to be able to write to it.
func listenPrivately(path string) (net.Listener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}
