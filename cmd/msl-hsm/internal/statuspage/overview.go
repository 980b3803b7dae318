package statuspage

import (
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Overview is all that the page shows.
type Overview struct {
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started"`
	Identity string    `json:"identity"`
	Version  string    `json:"version"`
	Custody  string    `json:"custody"` // of session keys

	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`

	Interval float64 `json:"interval"` // of Past, in seconds
	Past     []Point `json:"past"`     // the oldest first
	Measured bool    `json:"measured"` // operations of the key store are in Past

	Keys        Keys         `json:"keys"`
	Sessions    []Number     `json:"sessions"`
	Failures    []Failure    `json:"failures"`              // the newest first
	Enrollments *Enrollments `json:"enrollments,omitempty"` // absent if none enroll here
	State       State        `json:"state"`
}

// A Check is one thing that a server needs.
type Check struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"` // ok, warning or failure
	Detail  string `json:"detail"`
}

// Keys are what a key store has, as it said lately.
type Keys struct {
	Store string    `json:"store"` // in words
	Read  time.Time `json:"read,omitzero"`
	Keys  []Key     `json:"keys,omitempty"`
	Error string    `json:"error,omitempty"` // why they cannot be listed
}

// A Key is a version of a key, and what is known of it.
type Key struct {
	keystore.Info
	Purpose string `json:"purpose,omitempty"`
	Issues  bool   `json:"issues,omitempty"` // tokens, at present
}

// A Number is a value with a name.
type Number struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Enrollments are devices that wait for a person.
type Enrollments struct {
	Waiting int      `json:"waiting"`
	Oldest  []Device `json:"oldest"` // some of them
	Error   string   `json:"error,omitempty"`
}

// A Device waits for a person.
type Device struct {
	ID    string    `json:"id"` // of its TPM
	Name  string    `json:"name"`
	Waits string    `json:"waits"` // why
	Since time.Time `json:"since"`
}

// State is where a server keeps what it must not forget.
type State struct {
	Engine  string   `json:"engine"` // in words
	Where   string   `json:"where"`
	Size    int64    `json:"size,omitempty"` // in bytes
	Members []Member `json:"members,omitempty"`
	Servers []Server `json:"servers,omitempty"` // that share it
	Error   string   `json:"error,omitempty"`
}

// A Member is one of a cluster.
type Member struct {
	Endpoint string `json:"endpoint"`
	Version  string `json:"version,omitempty"`
	Leader   bool   `json:"leader,omitempty"`
	Size     int64  `json:"size,omitempty"` // of its database, in bytes
	Error    string `json:"error,omitempty"`
}

// A Server shares a state with others.
type Server struct {
	Name    string `json:"name"`
	Problem string `json:"problem,omitempty"` // why it cannot follow a rotation of keys
}
