package admin

import (
	"io"
	"net/http"
	"net/url"

	"github.com/msl-hsm/msl-hsm/msl/state"
)

// A Registry holds the entities and users that may talk to the server: in the state
// file itself or, while a server has it open, through that server.
type Registry interface {
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

// Registry connects to a running server through the socket beside its state file, or
// opens the file if there is none. It opens a state in etcd itself: the servers learn of
// changes there.
func (r *Keys) Registry() (Registry, error) {
	c := r.c
	if err := FindState(c, ""); err != nil {
		return nil, err
	}
	if remote, err := dialFile(c); remote != nil || err != nil {
		return remoteRegistry{remote}, err
	}
	s, err := r.openState()
	if err != nil || CommandLog(c) == "" {
		return s, err
	}
	return auditedRegistry{s, c}, nil
}

// A remoteRegistry is the registry of a running server.
type remoteRegistry struct{ *Running }

func (r remoteRegistry) about(method, path, name string, in any) error {
	return r.call(method, path+"?name="+url.QueryEscape(name), in, nil)
}

func (r remoteRegistry) AddEntity(e state.EntityRecord) error {
	return r.call(http.MethodPost, "/entities", e, nil)
}

func (r remoteRegistry) RemoveEntity(name string) error {
	return r.about(http.MethodDelete, "/entities", name, nil)
}

func (r remoteRegistry) RevokeEntity(name string) error {
	return r.about(http.MethodPost, "/entities/revoke", name, nil)
}

func (r remoteRegistry) UnrevokeEntity(name string) error {
	return r.about(http.MethodPost, "/entities/unrevoke", name, nil)
}

func (r remoteRegistry) AddUser(name string, password []byte) error {
	return r.about(http.MethodPost, "/users", name, password)
}

func (r remoteRegistry) RemoveUser(name string) error {
	return r.about(http.MethodDelete, "/users", name, nil)
}

func (r remoteRegistry) SetPassword(name string, password []byte) error {
	return r.about(http.MethodPut, "/users/password", name, password)
}

func (r remoteRegistry) RevokeUser(name string) error {
	return r.about(http.MethodPost, "/users/revoke", name, nil)
}

func (r remoteRegistry) UnrevokeUser(name string) error {
	return r.about(http.MethodPost, "/users/unrevoke", name, nil)
}

func (r remoteRegistry) Entities() (all []state.EntityRecord, err error) {
	err = r.call(http.MethodGet, "/entities", nil, &all)
	return all, err
}

func (r remoteRegistry) Users() (all []state.UserRecord, err error) {
	err = r.call(http.MethodGet, "/users", nil, &all)
	return all, err
}
