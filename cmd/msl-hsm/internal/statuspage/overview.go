package statuspage

import (
	"time"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// An Overview is everything that the page shows.
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

// A Point is what happened in ten seconds. Times are in milliseconds.
type Point struct {
	At       int64 `json:"at"`       // its end, in seconds since 1970
	Answered int64 `json:"answered"` // messages, with what the application said or with keys
	Failed   int64 `json:"failed"`   // messages that were refused, or not answered
	Message  Times `json:"message"`  // from the first byte of a message until the network had the answer
	Call     Times `json:"call"`     // of operations of the key store, with the wait for it
}

// Times are those of some events.
type Times struct {
	Number  int64   `json:"number"`
	Mean    float64 `json:"mean"`
	Longest float64 `json:"longest"`
}

// A Failure is a message that was refused, or not answered.
type Failure struct {
	At      time.Time `json:"at"`
	Fault   string    `json:"fault"` // whose it was
	Source  string    `json:"source"`
	Entity  string    `json:"entity,omitempty"`
	Proven  bool      `json:"proven"` // that it was this entity
	Code    string    `json:"code,omitempty"`
	Because string    `json:"because"`
}

// Keys are a key store's keys, as recently reported.
type Keys struct {
	Store string    `json:"store"` // in words
	Read  time.Time `json:"read,omitzero"`
	Keys  []Key     `json:"keys,omitempty"`
	Error string    `json:"error,omitempty"` // why they cannot be listed
}

// A Key is a version of a key, and what is known about it.
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

// Enrollments are devices waiting for a person.
type Enrollments struct {
	Waiting int      `json:"waiting"`
	Oldest  []Device `json:"oldest"` // some of them
	Error   string   `json:"error,omitempty"`
}

// A Device is waiting for a person.
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

// A Member is a member of a cluster.
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
