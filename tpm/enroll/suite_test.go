package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A Place is where the records of a test are. Open opens them once more.
type Place struct {
	Open  func() Records
	Check func() (map[State]int, error)
}

// RunSuite tests authorities over records, two of them for the same devices. Each call of
// place returns records of no device.
func RunSuite(t *testing.T, place func(testing.TB) Place) {
	ek, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*pair){
		"each step elsewhere":       eachStepElsewhere,
		"decisions":                 decisions,
		"many approvals":            manyApprovals,
		"two decide at once":        twoDecide,
		"one proof at both":         oneProof,
		"two renewals at once":      twoRenewals,
		"revoked meanwhile":         revokedMeanwhile,
		"overtaken by another key":  overtaken,
		"standing":                  standingElsewhere,
		"refused, and then removed": refusedElsewhere,
		"a walk by time":            func(p *pair) { walkOfChanges(p, Query{}) },
		"a walk by name":            func(p *pair) { walkOfChanges(p, Query{Name: "box-"}) },
		"a walk by state":           func(p *pair) { walkOfChanges(p, Query{State: Approved}) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, place(t), forgerOf(t, ek))
			test(p)
			if _, err := p.at.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A pair are two authorities with the same records, keys and protocol above.
type pair struct {
	*testing.T
	at   Place
	a, b *office
	f    *forger

	mu       sync.Mutex
	entities map[string]ecdsa.PublicKey // by name, as the protocol above has them
}

func newPair(t *testing.T, at Place, f *forger) *pair {
	p := &pair{T: t, at: at, f: f, entities: map[string]ecdsa.PublicKey{}}
	p.a = newOffice(t, accepting(), func(c *Config) { c.Register, c.Withdraw = p.register, p.withdraw })
	p.a.over(at.Open())
	p.b = &office{t: t, c: p.a.c}
	p.b.over(at.Open())
	p.b.challenges = p.a.challenges
	return p
}

// over makes the authority anew, over these records.
func (o *office) over(r Records) {
	o.t.Helper()
	o.c.Records = r
	var err error
	if o.Authority, err = NewAuthority(o.c); err != nil {
		o.t.Fatal(err)
	}
}

func (p *pair) register(_ context.Context, id Identity) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entities[id.Name] = *id.Keys[0].Public.(*ecdsa.PublicKey)
	return nil
}

func (p *pair) withdraw(_ context.Context, id Identity) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range slices.Concat(id.Keys, id.Former) {
		if known, ok := p.entities[id.Name]; ok && known.Equal(k.Public) {
			delete(p.entities, id.Name)
		}
	}
	return nil
}

// agree wants the protocol above to know what the record says.
func (p *pair) agree() Record {
	p.Helper()
	r := p.b.record(p.f.id())
	id, err := r.Identity()
	if err != nil {
		p.Fatal(err)
	}
	known, ok := p.entities[r.Name]
	if ok != (r.State == Enrolled) || ok && !known.Equal(id.Keys[0].Public) {
		p.Errorf("%s, and registered is %v: %v", r.State, ok, r.Log)
	}
	return r
}

func (p *pair) proof(o *office) proof.Proof {
	p.Helper()
	b := p.f.begin()
	return p.f.prove(b, p.f.ask(o, b))
}

func eachStepElsewhere(p *pair) {
	_, err := decideOn(p.T, p.b, p.proof(p.a))
	checkError(p, err, nil)
	old := p.f.key
	p.f.newKey()
	renewal := p.proof(p.b)
	renewal.Renewal = p.f.renewal(&renewal, old)
	d, err := decideOn(p.T, p.a, renewal)
	if checkError(p, err, nil); !d.Renewed {
		p.Errorf("%+v", d)
	}
	if r := p.agree(); len(r.Certificates) != 2 || r.Certificates[0].Revoked == nil {
		p.Errorf("%+v", r.Certificates)
	}
	checkError(p, p.b.RevokeDevice(p.Context(), p.f.id(), ""), nil)
	checkError(p, p.f.enroll(p.a), ErrRevoked)
	p.agree()
	checkError(p, p.a.Reinstate(p.Context(), p.f.id(), ""), nil)
	checkError(p, p.f.enroll(p.b), nil)
	p.agree()
}

// decisions of an operator at one authority hold at the other, at once.
func decisions(p *pair) {
	ctx := p.Context()
	p.a.policy, p.b.policy = Policy{}, Policy{}
	checkError(p, p.f.enroll(p.a), ErrPending)
	checkError(p, p.b.Approve(ctx, p.f.id(), "box", ""), nil)
	checkError(p, p.a.Approve(ctx, ID{1}, "box", ""), ErrName)
	checkError(p, p.f.enroll(p.a), nil)
	r := p.agree()
	page, err := p.b.Page(ctx, Query{State: Enrolled})
	if err != nil || len(page.Records) != 1 || page.Records[0].Name != "box" {
		p.Errorf("%+v, %v", page, err)
	}
	checkError(p, p.b.RevokeCertificate(ctx, r.Certificates[0].Serial, ""), nil)
	crl, err := p.a.CRL(ctx)
	if err != nil || len(crl) == 0 {
		p.Error(err)
	}
	checkError(p, p.a.Approve(ctx, ID{2}, "", ""), nil)
	checkError(p, p.b.Merge(ctx, p.f.id(), ID{2}, ""), nil)
	if got, err := p.a.Named(ctx, "box"); err != nil || got.ID != (ID{2}) {
		p.Errorf("%s, %v", got.ID, err)
	}
	if len(p.entities) > 0 {
		p.Errorf("%d are registered", len(p.entities))
	}
}

func manyApprovals(p *pair) {
	var list []Approval
	for i := range byte(30) {
		list = append(list, Approval{ID: ID{i}, Name: fmt.Sprint("box-", i%29)})
	}
	errs := p.a.ApproveAll(p.Context(), list)
	for i, err := range errs[:29] {
		if err != nil {
			p.Errorf("%d: %v", i, err)
		}
	}
	checkError(p, errs[29], ErrName)
	var found []Record
	for q := (Query{Limit: 7}); ; {
		page, err := p.b.Page(p.Context(), q)
		checkError(p, err, nil)
		found = append(found, page.Records...)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if n, err := p.b.Count(p.Context(), Approved); err != nil || n != 29 || len(found) != 29 {
		p.Errorf("%d of %d, %v", len(found), n, err)
	}
}

// both runs something at both authorities at the same time.
func (p *pair) both(do func(*office) error) (errs [2]error) {
	var done sync.WaitGroup
	for i, o := range []*office{p.a, p.b} {
		done.Go(func() { errs[i] = do(o) })
	}
	done.Wait()
	return errs
}

// twoDecide has one operator approve a device, and another reject it: one of them is last.
func twoDecide(p *pair) {
	ctx := p.Context()
	for i := range byte(5) {
		errs := p.both(func(o *office) error {
			if o == p.a {
				return o.Approve(ctx, ID{i}, "", "")
			}
			return o.Reject(ctx, ID{i}, "")
		})
		r, err := p.a.Get(ctx, ID{i})
		if err = errors.Join(errs[0], errs[1], err); err != nil || len(r.Log) != 2 {
			p.Errorf("%+v, %v", r.Log, err)
		}
		approvedLast := r.Log[1].What == "approved as "+r.Name
		if r.Approved != approvedLast || (r.State == Approved) != approvedLast {
			p.Errorf("%s after %+v", r.State, r.Log)
		}
	}
}

func oneProof(p *pair) {
	sent := p.proof(p.a)
	errs := p.both(func(o *office) error {
		_, err := decideOn(p.T, o, sent)
		return err
	})
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), ErrStale) {
		p.Errorf("%v", errs)
	}
	if r := p.agree(); len(r.Certificates) != 1 {
		p.Errorf("%d certificates", len(r.Certificates))
	}
}

// twoRenewals has a device offer another key to each authority.
func twoRenewals(p *pair) {
	checkError(p, p.f.enroll(p.a), nil)
	old := p.f.key
	sent := map[*office]proof.Proof{}
	for _, o := range []*office{p.a, p.b} {
		p.f.newKey()
		renewal := p.proof(o)
		renewal.Renewal = p.f.renewal(&renewal, old)
		sent[o] = renewal
	}
	errs := p.both(func(o *office) error {
		_, err := decideOn(p.T, o, sent[o])
		return err
	})
	if (errs[0] == nil) == (errs[1] == nil) {
		p.Errorf("%v", errs)
	}
	r := p.agree()
	current := slices.DeleteFunc(slices.Clone(r.Certificates), func(c Certificate) bool { return c.Revoked != nil })
	if len(current) != 1 || len(r.current()) != 1 {
		p.Errorf("%d certificates and %d keys", len(current), len(r.current()))
	}
}

// revokedMeanwhile has an operator revoke a device at one authority, while the other one
// registers it.
func revokedMeanwhile(p *pair) {
	p.a.c.Register = func(ctx context.Context, id Identity) error {
		return errors.Join(p.b.RevokeDevice(ctx, id.ID, ""), p.register(ctx, id))
	}
	p.a.over(p.at.Open())
	checkError(p, p.f.enroll(p.a), ErrRevoked)
	if r := p.agree(); r.State != Revoked {
		p.Errorf("%s", r.State)
	}
}

// overtaken has the other authority enroll a newer key, while the first one registers an
// older one.
func overtaken(p *pair) {
	first := p.proof(p.a)
	newer := false
	p.a.c.Register = func(ctx context.Context, id Identity) error {
		if !newer {
			newer = true
			p.f.newKey()
			checkError(p, p.f.enroll(p.b), nil)
		}
		return p.register(ctx, id)
	}
	challenges := p.a.challenges
	p.a.over(p.at.Open())
	p.a.challenges = challenges
	_, err := decideOn(p.T, p.a, first)
	checkError(p, err, ErrStale)
	if r := p.agree(); len(r.Certificates) != 1 {
		p.Errorf("%d certificates", len(r.Certificates))
	}
}

// standingElsewhere tells one authority what the other one wrote.
func standingElsewhere(p *pair) {
	checkError(p, p.f.enroll(p.a), nil)
	r := p.agree()
	checkError(p, p.b.RevokeCertificate(p.Context(), r.Certificates[0].Serial, ""), nil)
	for _, o := range []*office{p.b, p.a} {
		within(p, func() bool {
			s, err := o.Standing(p.Context(), r.Name)
			return err == nil && s.Since.Equal(r.Since) && !s.Compromised.IsZero()
		})
	}
	if s, err := p.a.Standing(p.Context(), "nobody"); err != nil || s != (Standing{}) {
		p.Errorf("%+v, %v", s, err)
	}
}

func refusedElsewhere(p *pair) {
	p.a.policy = Policy{RefuseUnknown: true}
	checkError(p, p.f.enroll(p.a), ErrPolicy)
	if r := p.agree(); r.State != Refused {
		p.Errorf("%s", r.State)
	}
	checkError(p, p.b.Remove(p.Context(), p.f.id()), nil)
	_, err := p.a.Get(p.Context(), p.f.id())
	checkError(p, err, ErrUnknown)
}

func TestSuiteInFile(t *testing.T) {
	RunSuite(t, func(t testing.TB) Place {
		f, err := OpenFile(t.TempDir() + "/records")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return Place{func() Records { return f }, f.Check}
	})
}

// within waits until a condition holds, which takes a moment where a copy has to follow.
func within(t testing.TB, holds func() bool) {
	t.Helper()
	for try := 0; !holds(); try++ {
		if try > 5000 {
			t.Fatal("it does not come to hold")
		}
		time.Sleep(time.Millisecond)
	}
}
