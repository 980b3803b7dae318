package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestOtherFiles reads no state from what is not one, or from what others may write.
func TestOtherFiles(t *testing.T) {
	chip := connect(t, tpmtest.Start(t))
	for name, tt := range map[string]struct {
		change func(path string) error
		want   error
	}{
		"a pipe":    {func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) }, ErrDamaged},
		"too long":  {func(path string) error { return os.Truncate(path, 2<<30) }, ErrDamaged},
		"of others": {func(path string) error { return os.Chmod(path, 0o620) }, keystore.ErrWeakKey},
	} {
		path := newPath(t)
		d := ready(t, chip, path)
		if err := tt.change(path); err != nil {
			t.Fatal(err)
		}
		_, err := d.Status()
		checkError(t, err, tt.want)
		_, err = Open(d.store, path)
		if checkError(t, err, tt.want); err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNotReady(t *testing.T) {
	ctx := context.Background()
	chip := connect(t, tpmtest.Start(t))
	path := newPath(t)
	d := openDevice(t, chip, path)
	exchange := newOffice(t, accepting()).exchange
	if s, err := d.Status(); err != nil || s.Initialized || s.Enrolled {
		t.Errorf("%+v, %v", s, err)
	}
	checkError(t, d.Enroll(ctx, exchange, nil), ErrNotInitialized)
	checkError(t, d.Check(), ErrNotInitialized)
	_, err := d.Quote(make([]byte, 16), nil)
	checkError(t, err, ErrNotInitialized)
	d = ready(t, chip, path)
	checkError(t, d.Renew(ctx, exchange, nil), ErrNotEnrolled)
	_, _, err = d.Credentials()
	checkError(t, err, ErrNotEnrolled)
	checkError(t, d.Check(), nil)
	if err := d.Init(ctx, InitOptions{AK: keystore.AES128CBC, Replace: true}, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := d.Init(ctx, InitOptions{EK: "rsa1024", Replace: true}, nil); err == nil {
		t.Error("an unknown EK is taken")
	}
}

// TestInitAgain expects the same keys after any number of Inits, and that no other
// algorithm's key is lost.
func TestInitAgain(t *testing.T) {
	ctx := context.Background()
	chip := connect(t, tpmtest.Start(t))
	path := newPath(t)
	ready(t, chip, path)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := ready(t, chip, path)
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("Init changed the file, %v", err)
	}
	key := saved(t, d).file.state.Keys[0].Public
	if err := d.Init(ctx, InitOptions{Algorithms: []keystore.Algorithm{keystore.RSASign2048}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(saved(t, d).file.state.Keys) != 2 || !bytes.Equal(saved(t, d).file.state.Keys[0].Public, key) {
		t.Errorf("%d keys", len(saved(t, d).file.state.Keys))
	}
	if err := d.Init(ctx, InitOptions{NewKeys: true}, nil); err != nil {
		t.Fatal(err)
	}
	if len(saved(t, d).file.state.Keys) != 1 || bytes.Equal(saved(t, d).file.state.Keys[0].Public, key) {
		t.Errorf("%d keys", len(saved(t, d).file.state.Keys))
	}
	if err := d.Init(ctx, InitOptions{EK: EKP256}, nil); err == nil {
		t.Error("another EK without a word")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	checkError(t, d.Init(cancelled, InitOptions{}, nil), context.Canceled)
}

func TestEnrollByPerson(t *testing.T) {
	ctx := context.Background()
	for _, options := range []InitOptions{{EK: EKP256}, {AK: keystore.RSASign2048, Algorithms: []keystore.Algorithm{keystore.RSASign2048}}} {
		chip := connect(t, tpmtest.Start(t))
		o := newOffice(t, enroll.Policy{})
		path := newPath(t)
		d := openDevice(t, chip, path)
		if err := d.Init(ctx, options, nil); err != nil {
			t.Fatal(err)
		}
		checkError(t, d.Enroll(ctx, o.exchange, nil), ErrPending)
		d = openDevice(t, chip, path)
		if s, err := d.Status(); err != nil || s.LastAnswer != "pending" || s.Enrolled {
			t.Errorf("%+v, %v", s, err)
		}
		if err := o.Approve(ctx, idOf(t, d), "box", ""); err != nil {
			t.Fatal(err)
		}
		if err := d.Enroll(ctx, o.exchange, nil); err != nil {
			t.Fatal(err)
		}
		d = openDevice(t, chip, path)
		checkIdentity(t, d, o.c.Certificate, "box")
		if s, err := d.Status(); err != nil || s.LastAnswer != "enrolled" || !s.Enrolled || s.Name != "box" || s.Keys[0].NotAfter == nil {
			t.Errorf("%+v, %v", s, err)
		}
		o.verify(nil)
		checkError(t, o.RevokeDevice(ctx, idOf(t, d), ""), nil)
		checkError(t, d.Enroll(ctx, o.exchange, nil), ErrRevoked)
	}
}

func TestRenew(t *testing.T) {
	ctx := context.Background()
	chip := connect(t, tpmtest.Start(t))
	o := newOffice(t, enroll.Policy{HoldChanged: true})
	path := newPath(t)
	d := ready(t, chip, path)
	id := idOf(t, d)
	if err := o.Approve(ctx, id, "box", ""); err != nil {
		t.Fatal(err)
	}
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	old := saved(t, d).file.state.Keys[0].Public
	if err := d.Renew(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	d = openDevice(t, chip, path)
	if bytes.Equal(old, saved(t, d).file.state.Keys[0].Public) {
		t.Error("the key is the same")
	}
	checkIdentity(t, d, o.c.Certificate, "box")
	o.checkRevoked(id, true, false)

	// The authority enrolls the new key, and its answer is lost; then the
	// authority cannot be reached; then Enroll is used where Renew was.
	calls := 0
	lost := errors.New("connection lost")
	checkError(t, d.Renew(ctx, func(ctx context.Context, request []byte) ([]byte, error) {
		if calls++; calls == 2 {
			o.exchange(ctx, request)
			return nil, lost
		}
		return o.exchange(ctx, request)
	}, nil), lost)
	o.checkRevoked(id, true, true, false)
	d = openDevice(t, chip, path)
	if s, err := d.Status(); err != nil || !s.Renewing {
		t.Errorf("%+v, %v", s, err)
	}
	checkError(t, d.Enroll(ctx, func(context.Context, []byte) ([]byte, error) { return nil, lost }, nil), lost)
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	checkIdentity(t, openDevice(t, chip, path), o.c.Certificate, "box")
	o.checkRevoked(id, true, true, false)
	if s, err := d.Status(); err != nil || s.Renewing {
		t.Errorf("%+v, %v", s, err)
	}
	o.verify(nil)
}

func TestQuote(t *testing.T) {
	ctx := context.Background()
	chip := connect(t, tpmtest.Start(t))
	o := newOffice(t, accepting())
	d := ready(t, chip, newPath(t))
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	nonce := random(32)
	evidence, err := d.Quote(nonce, []uint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 23})
	if err != nil {
		t.Fatal(err)
	}
	r := o.record(idOf(t, d))
	values, err := enroll.VerifyQuote(evidence, &r, nonce)
	if err != nil || len(values) != 11 || values[10].Index != 23 {
		t.Errorf("%v, %v", values, err)
	}
	_, err = enroll.VerifyQuote(evidence, &r, random(32))
	checkError(t, err, ErrNonce)
	for i := 0; i < len(evidence); i += 5 {
		evidence[i] ^= 1
		if _, err := enroll.VerifyQuote(evidence, &r, nonce); err == nil {
			t.Errorf("byte %d is not looked at", i)
		}
		evidence[i] ^= 1
	}
	if _, err := d.Quote(nonce, []uint{24}); err == nil {
		t.Error("PCR 24")
	}
	if _, err := d.Quote(nonce[:15], nil); err == nil {
		t.Error("a short nonce")
	}
	other := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	if evidence, err = other.Quote(nonce, []uint{0}); err != nil {
		t.Fatal(err)
	}
	_, err = enroll.VerifyQuote(evidence, &r, nonce)
	checkError(t, err, ErrKey)
	r.State = enroll.Revoked
	_, err = enroll.VerifyQuote(evidence, &r, nonce)
	checkError(t, err, enroll.ErrState)
}

// TestCleared goes through the clearing of a TPM: same EK, same record.
func TestCleared(t *testing.T) {
	ctx := context.Background()
	p := tpmtest.Start(t)
	o := newOffice(t, accepting())
	path := newPath(t)
	chip := connect(t, p)
	d := ready(t, chip, path)
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	id := idOf(t, d)
	chip.Close()
	p.Clear(t)
	chip = connect(t, p)
	checkError(t, Diagnose(chip, path), ErrCleared)
	d = openDevice(t, chip, path)
	checkError(t, d.Check(), ErrCleared)
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrCleared)
	checkError(t, d.Renew(ctx, o.exchange, nil), ErrCleared)
	_, err := d.Quote(random(16), []uint{0})
	checkError(t, err, ErrCleared)
	d = ready(t, chip, path)
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	checkIdentity(t, d, o.c.Certificate, defaultName(id))
	if idOf(t, d) != id {
		t.Error("it is another device")
	}
	o.checkRevoked(id, true, false)
	o.verify(nil)
}

// TestReplaced goes through the replacement of a TPM: another EK, another record, merged
// by an operator. The state file of the old one is on the disk.
func TestReplaced(t *testing.T) {
	ctx := context.Background()
	p := tpmtest.Start(t)
	o := newOffice(t, enroll.Policy{})
	path := newPath(t)
	chip := connect(t, p)
	d := ready(t, chip, path)
	old := idOf(t, d)
	if err := o.Approve(ctx, old, "box", ""); err != nil {
		t.Fatal(err)
	}
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	chip.Close()
	p.Replace(t)
	chip = connect(t, p)
	checkError(t, Diagnose(chip, path), ErrOtherTPM)
	d = openDevice(t, chip, path)
	checkError(t, d.Check(), ErrOtherTPM)
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrOtherTPM)
	checkError(t, d.Init(ctx, InitOptions{}, nil), ErrOtherTPM)
	if err := d.Init(ctx, InitOptions{Replace: true}, nil); err != nil {
		t.Fatal(err)
	}
	checkError(t, d.Enroll(ctx, o.exchange, nil), ErrPending)
	if err := o.Merge(ctx, old, idOf(t, d), ""); err != nil {
		t.Fatal(err)
	}
	if err := d.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	checkIdentity(t, d, o.c.Certificate, "box")
}

// TestTwoProcesses lets two renew at once, as on a file system without locks: one wins, and the
// file has its keys.
func TestTwoProcesses(t *testing.T) {
	ctx := context.Background()
	chip := connect(t, tpmtest.Start(t))
	path := newPath(t)
	o := newOffice(t, accepting())
	a := ready(t, chip, path)
	if err := a.Enroll(ctx, o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	b := openDevice(t, chip, path)
	calls := 0
	err := a.Renew(ctx, func(ctx context.Context, request []byte) ([]byte, error) {
		if calls++; calls == 1 {
			checkError(t, os.Remove(path+".lock"), nil)
			checkError(t, b.Renew(ctx, o.exchange, nil), nil)
		}
		return o.exchange(ctx, request)
	}, nil)
	checkError(t, err, ErrInUse)
	checkIdentity(t, a, o.c.Certificate, defaultName(idOf(t, a)))
	if err := a.Enroll(ctx, o.exchange, nil); err != nil {
		t.Error(err)
	}
	o.verify(nil)
}

func TestSigner(t *testing.T) {
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	o := newOffice(t, accepting())
	if err := d.Enroll(context.Background(), o.exchange, nil); err != nil {
		t.Fatal(err)
	}
	_, list, err := d.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := list[0].Signer.Sign(rand.Reader, make([]byte, 20), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// TestNothingSecretOnDisk looks for the secret of a challenge in the files.
func TestNothingSecretOnDisk(t *testing.T) {
	d := ready(t, connect(t, tpmtest.Start(t)), newPath(t))
	o := newOffice(t, accepting())
	var message []byte
	err := d.Enroll(context.Background(), func(ctx context.Context, request []byte) ([]byte, error) {
		message = request
		return o.exchange(ctx, request)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := proof.Parse[proof.Proof](message, proof.TypeProof)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	if secret := proof.Encode(p.Secret); bytes.Contains(text, secret[1:len(secret)-1]) {
		t.Error("the secret is in the state file")
	}
}
