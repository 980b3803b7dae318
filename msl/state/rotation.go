package state

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// A Rotation says how far the servers of a state have progressed toward other versions of
// their keys. Each change has the next number, and servers record which one they have
// followed.
type Rotation struct {
	Number int64 `json:"number"`
	Step   Step  `json:"step"`
	// Former are the versions by label that are used until Step is [StepUsed], and
	// Versions those used from then on.
	Former   map[string]uint32 `json:"former"`
	Versions map[string]uint32 `json:"versions"`
	// Least are the oldest versions, by label, that servers still use to open anything.
	Least map[string]uint32 `json:"least,omitempty"`
	// Replaced are the times since which no server has used the predecessor of a version,
	// by label and that version.
	Replaced map[string]map[uint32]time.Time `json:"replaced,omitempty"`
}

// A Step of a rotation.
type Step string

// The steps of a rotation, in their order.
const (
	StepAnnounced Step = "announced" // servers go on with the former versions, whatever is there
	StepMade      Step = "made"      // the versions are there, and servers look for them
	StepUsed      Step = "used"      // servers use them
	StepDone      Step = "done"      // all servers do
)

// Pending reports whether the former versions are still used.
func (r *Rotation) Pending() bool { return r.Step == StepAnnounced || r.Step == StepMade }

// A Presence says that a server uses the state, and which rotation it has followed. It
// has another Beat whenever it is written.
type Presence struct {
	Name    string `json:"name"` // for people
	Number  int64  `json:"number"`
	Beat    int64  `json:"beat"`
	Problem string `json:"problem,omitempty"` // why it cannot follow
}

const (
	rotationKey = "rotation" // in the settings
	presenceKey = "server "  // likewise, before the id of a server
)

// ErrConflict: something else was changed in the meantime.
var ErrConflict = fmt.Errorf("state: it was changed meanwhile")

// Rotation returns the newest rotation. Before the first one, its number is 0.
func (s *Server) Rotation(ctx context.Context) (r Rotation, err error) {
	err = s.recall(ctx, "read the rotation of keys", func(tx kv.Reader) error {
		r, err = readRotation(tx)
		return err
	})
	return r, err
}

func readRotation(tx kv.Reader) (r Rotation, err error) {
	b, err := tx.Get(kv.Settings, []byte(rotationKey))
	if err == nil && b != nil {
		err = kv.DecodeJSON(b, &r)
	}
	return r, err
}

// SetRotation stores r as the newest rotation. Its number must be one more than the
// previous one's. Otherwise the error is [ErrConflict].
func (s *Server) SetRotation(ctx context.Context, r Rotation) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.update(ctx, "change the rotation of keys", func(tx kv.Tx) error {
		now, err := readRotation(tx)
		if err == nil && r.Number != now.Number+1 {
			err = ErrConflict
		}
		if err != nil {
			return err
		}
		return tx.Put(kv.Settings, []byte(rotationKey), text)
	})
}

// SetPresence stores the presence of the server with an id.
func (s *Server) SetPresence(ctx context.Context, id string, p Presence) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.noteDown(ctx, "tell that a server is there", func(tx kv.Tx) error {
		return tx.Put(kv.Settings, []byte(presenceKey+id), text)
	})
}

// RemovePresence forgets the server with an id.
func (s *Server) RemovePresence(ctx context.Context, id string) error {
	return s.noteDown(ctx, "forget a server", func(tx kv.Tx) error {
		return tx.Delete(kv.Settings, []byte(presenceKey+id))
	})
}

// Presences returns the servers by id, including any that were killed.
func (s *Server) Presences(ctx context.Context) (all map[string]Presence, err error) {
	err = s.view(ctx, "list the servers", func(tx kv.Reader) error {
		all = map[string]Presence{}
		prefix := []byte(presenceKey)
		for pair, err := range kv.All(tx, kv.Settings, prefix, kv.PrefixEnd(prefix)) {
			if err != nil {
				return err
			}
			var p Presence
			if err := kv.DecodeJSON(pair.Value, &p); err != nil {
				return err
			}
			all[string(pair.Key[len(prefix):])] = p
		}
		return nil
	})
	return all, err
}
