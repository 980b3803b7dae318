package fleet

import (
	"context"
	"errors"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A renamer gives names to devices, which come again after that.
type renamer struct {
	*desk
	maker maker
}

func newRenamer(t *testing.T) *renamer {
	t.Helper()
	m, err := newMaker()
	if err != nil {
		t.Fatal(err)
	}
	return &renamer{newDesk(t), m}
}

func (r *renamer) through(ctx context.Context, request []byte) ([]byte, error) {
	response, _ := r.Handle(ctx, request)
	return response, nil
}

func (r *renamer) device() (*simulated, enroll.ID) {
	r.t.Helper()
	s, err := simulate()
	if err != nil {
		r.t.Fatal(err)
	}
	id, err := proof.EKHash(s.ek.Public())
	if err != nil {
		r.t.Fatal(err)
	}
	return &s, enroll.ID(id)
}

// come has a device enroll, which has its name then if there was no error.
func (r *renamer) come(s *simulated, name string, want error) {
	r.t.Helper()
	certificate, err := r.maker.certify(s)
	if err != nil {
		r.t.Fatal(err)
	}
	if err = s.enroll(r.t.Context(), r.through, certificate); !errors.Is(err, want) {
		r.t.Errorf("%s: %v, want %v", name, err, want)
	}
	e, err := r.state.Entity(r.t.Context(), name)
	if live := err == nil && !e.Revoked && keystore.SamePublic(s.key.Public(), e.PublicKey); live != (want == nil) {
		r.t.Errorf("%s: registered is %v: %+v, %v", name, live, e, err)
	}
}

func (r *renamer) name(id enroll.ID, name string) {
	r.t.Helper()
	if err := r.Approve(r.t.Context(), id, name, ""); err != nil {
		r.t.Fatal(err)
	}
}

// TestNamesPassOn gives the former name of a device to another one.
func TestNamesPassOn(t *testing.T) {
	for what, giveUp := range map[string]func(r *renamer, first *simulated, id enroll.ID){
		"renamed": func(r *renamer, first *simulated, id enroll.ID) {
			r.name(id, "other")
			r.come(first, "other", nil)
		},
		"renamed and renewed": func(r *renamer, first *simulated, id enroll.ID) {
			r.name(id, "other")
			r.come(first, "other", nil)
			r.restart()
			r.name(id, "third")
			r.come(first, "third", nil)
		},
		"renamed and revoked": func(r *renamer, first *simulated, id enroll.ID) {
			r.name(id, "other")
			if err := r.RevokeDevice(r.t.Context(), id, ""); err != nil {
				r.t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRenamer(t)
			first, a := r.device()
			second, b := r.device()
			r.name(a, "box")
			r.come(first, "box", nil)
			giveUp(r, first, a)
			r.name(b, "box")
			r.come(second, "box", nil)
			if err := r.state.RevokeEntity("box"); err != nil {
				t.Fatal(err)
			}
			another, err := simulate()
			if err != nil {
				t.Fatal(err)
			}
			second.key = another.key
			r.come(second, "box", enroll.ErrInternal) // what was revoked by hand stays so
		})
	}
}

// TestNameRevokedByHand does not give a device a name that an operator revoked as an entity.
func TestNameRevokedByHand(t *testing.T) {
	r := newRenamer(t)
	first, a := r.device()
	second, b := r.device()
	r.name(a, "box")
	r.come(first, "box", nil)
	if err := r.state.RevokeEntity("box"); err != nil {
		t.Fatal(err)
	}
	r.name(a, "other")
	r.name(b, "box")
	r.come(second, "box", enroll.ErrInternal)
}

// TestNamesSwap has each of two devices get the name of the other.
func TestNamesSwap(t *testing.T) {
	r := newRenamer(t)
	first, a := r.device()
	second, b := r.device()
	r.name(a, "left")
	r.name(b, "right")
	r.come(first, "left", nil)
	r.come(second, "right", nil)
	r.name(a, "between")
	r.name(b, "left")
	r.come(second, "left", enroll.ErrInternal) // the first one has it until it comes
	r.come(first, "between", nil)
	r.come(second, "left", nil)
	r.name(a, "right")
	r.come(first, "right", nil)
	for _, name := range []string{"wrong", "right", "wrong", "right"} { // put right
		r.name(a, name)
		r.come(first, name, nil)
	}
	if _, err := r.records.Check(); err != nil {
		t.Error(err)
	}
}

// TestNamesRevokedByHandStay has a device give up, in several ways, a name that an operator
// revoked as an entity: no device gets that name, nor does the device itself, until the
// operator takes the revocation back.
func TestNamesRevokedByHandStay(t *testing.T) {
	for what, giveUp := range map[string]func(r *renamer, first *simulated, id enroll.ID) enroll.ID{
		"renamed": func(r *renamer, first *simulated, id enroll.ID) enroll.ID {
			r.name(id, "other")
			r.come(first, "other", nil)
			return enroll.ID{}
		},
		"renamed, after a restart": func(r *renamer, first *simulated, id enroll.ID) enroll.ID {
			r.name(id, "other")
			r.come(first, "other", nil)
			r.restart()
			return enroll.ID{}
		},
		"renamed and revoked": func(r *renamer, first *simulated, id enroll.ID) enroll.ID {
			r.name(id, "other")
			if err := r.RevokeDevice(r.t.Context(), id, ""); err != nil {
				r.t.Fatal(err)
			}
			return enroll.ID{}
		},
		"revoked and reinstated": func(r *renamer, first *simulated, id enroll.ID) enroll.ID {
			for range 2 { // the second one finds what the first one did
				if err := r.RevokeDevice(r.t.Context(), id, ""); err != nil {
					r.t.Fatal(err)
				}
			}
			if err := r.Reinstate(r.t.Context(), id, ""); err != nil {
				r.t.Fatal(err)
			}
			return id
		},
		"merged": func(r *renamer, first *simulated, id enroll.ID) enroll.ID { return id },
	} {
		t.Run(what, func(t *testing.T) {
			r := newRenamer(t)
			first, a := r.device()
			second, b := r.device()
			r.name(a, "box")
			r.come(first, "box", nil)
			if err := r.state.RevokeEntity("box"); err != nil {
				t.Fatal(err)
			}
			own := giveUp(r, first, a)
			if what == "merged" {
				r.name(b, "waits")
				if err := r.Merge(t.Context(), a, b, ""); err != nil {
					t.Fatal(err)
				}
				r.come(second, "box", enroll.ErrInternal)
			} else if own == a {
				r.name(a, "box")
				r.come(first, "box", enroll.ErrInternal)
				second = first
			} else {
				r.name(b, "box")
				r.come(second, "box", enroll.ErrInternal)
			}
			if err := r.state.UnrevokeEntity("box"); err != nil {
				t.Fatal(err)
			}
			if what != "renamed and revoked" {
				return
			}
			if err := r.state.RemoveEntity("box"); err != nil {
				t.Fatal(err)
			}
			r.come(second, "box", nil)
		})
	}
}

// TestNamesRevokedByHandAfterwards revokes a name as an operator once the authority has: no
// enrollment takes back what the operator did, whichever identity it was about.
func TestNamesRevokedByHandAfterwards(t *testing.T) {
	for what, free := range map[string]func(r *renamer, first *simulated, id enroll.ID){
		"renamed": func(r *renamer, first *simulated, id enroll.ID) {
			r.name(id, "other")
			r.come(first, "other", nil)
		},
		"revoked": func(r *renamer, _ *simulated, id enroll.ID) { r.revokeDevice(id) },
		"revoked, and then renamed": func(r *renamer, first *simulated, id enroll.ID) {
			r.revokeDevice(id)
			r.byHand("box")
			r.reinstate(id)
			r.name(id, "other")
			r.come(first, "other", nil)
		},
	} {
		for _, identity := range []string{"box", CertificateIdentity("box")} {
			t.Run(what+"/"+identity, func(t *testing.T) {
				r := newRenamer(t)
				first, a := r.device()
				r.name(a, "box")
				r.come(first, "box", nil)
				free(r, first, a)
				r.byHand(identity)
				r.restart()
				second, b := r.device()
				if what == "revoked" {
					r.reinstate(a)
					second, b = first, a
				}
				r.name(b, "box")
				r.come(second, "box", enroll.ErrInternal)
				for _, name := range []string{"box", CertificateIdentity("box")} {
					if e, err := r.state.Entity(t.Context(), name); err != nil || !e.Revoked {
						t.Errorf("%s is free: %+v, %v", name, e, err)
					}
				}
			})
		}
	}
}

func (r *renamer) byHand(identity string) {
	r.t.Helper()
	if err := r.state.RevokeEntity(identity); err != nil {
		r.t.Fatal(err)
	}
}

func (r *renamer) revokeDevice(id enroll.ID) {
	r.t.Helper()
	if err := r.RevokeDevice(r.t.Context(), id, ""); err != nil {
		r.t.Fatal(err)
	}
}

func (r *renamer) reinstate(id enroll.ID) {
	r.t.Helper()
	if err := r.Reinstate(r.t.Context(), id, ""); err != nil {
		r.t.Fatal(err)
	}
}
