package msl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/keyx"
	"github.com/msl-hsm/msl-hsm/msl/userauth"
)

// A labelled store shares a store with others, under its own labels.
type labelled struct {
	*soft.Store
	prefix string
}

func (l labelled) Create(label string, a keystore.Algorithm) (keystore.Version, error) {
	return l.Store.Create(l.prefix+label, a)
}

// A neighbour is one of two networks in one process and one key store, and its
// client. The entities have the same names in both, and keys of their own.
type neighbour struct {
	*network
	client *msl.Client
	psk    *entityauth.PSKEntity
	seen   *msl.Message // by the application, last
	sent   []byte       // by the client, last
}

func newNeighbours(t *testing.T) (a, b *neighbour) {
	store := newStore(t)
	make := func(prefix string) *neighbour {
		n := &neighbour{network: newNetwork(t, labelled{store, prefix})}
		n.psk = n.pskEntity("device")
		n.client = n.network.client(n.psk, &keyx.SymmetricOfferer{Keys: n.psk.Keys})
		n.server.Custody = msl.CustodyImported
		n.server.KeyExchanges = append(n.server.KeyExchanges, &keyx.LadderResponder{Form: keyx.JWKLadder, Network: prefix, Store: n.store, PSK: n.network.psk})
		n.server.Users = append(n.server.Users, &userauth.UserIDToken{Issuer: n.server.Issuer, Tokens: n.server.OpenMasterToken})
		n.add(&entityauth.MTProtected{Tokens: n.server.OpenMasterToken, Inner: n.server.Peers})
		n.handler = func(ctx context.Context, w *msl.ResponseWriter, m *msl.Message) error {
			n.seen = m
			if len(m.ServiceTokens) == 0 {
				w.SetServiceToken("entity", []byte(prefix), msl.BindNone)
			}
			return echo(ctx, w, m)
		}
		n.intercept = func(message []byte) []byte {
			n.sent = bytes.Clone(message)
			return message
		}
		return n
	}
	return make("a "), make("b ")
}

// ask sends a request with everything that a request can have, and returns the bytes sent.
func (n *neighbour) ask(t *testing.T) []byte {
	t.Helper()
	req := secret("hello")
	req.NonReplayable = true
	if _, got, err := send(t, n.client, req); err != nil || got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	return n.sent
}

// refuses lets the server judge a message.
func (n *neighbour) refuses(t *testing.T, what string, message []byte, want msl.Code) {
	t.Helper()
	_, err := n.server.Receive(t.Context(), bytes.NewReader(message))
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// held returns the tokens of the client. Its keys sign anything.
func (n *neighbour) held(t *testing.T) (msl.HeldTokens, msl.Protector) {
	t.Helper()
	h, err := n.client.HeldTokens(t.Context(), "user@example.com")
	if err != nil || h.UserIDToken == nil {
		t.Fatalf("%+v, %v", h, err)
	}
	t.Cleanup(h.Keys.Release)
	return h, msl.SymmetricKey{KeyID: "x", Encryption: h.Keys.Encryption, MAC: h.Keys.Signature}
}

// TestNetworksApart tries the tokens and keys of one network on another one, in both
// directions, with all caches filled.
func TestNetworksApart(t *testing.T) {
	a, b := newNeighbours(t)
	for range 2 {
		fromA, fromB := a.ask(t), b.ask(t)
		a.refuses(t, "master token", fromB, msl.ErrMasterTokenUntrusted)
		b.refuses(t, "master token", fromA, msl.ErrMasterTokenUntrusted)
	}
	a.tryOn(t, b)
	b.tryOn(t, a)
	a.ask(t)
	b.ask(t)
}

// tryOn tries the tokens and keys of a client of n on another network.
func (n *neighbour) tryOn(t *testing.T, other *neighbour) {
	t.Helper()
	ours, _ := n.held(t)
	theirs, key := other.held(t)
	under := func(header object) []byte {
		return append(protect(t, key, object{"mastertoken": json.RawMessage(theirs.MasterToken.Bytes())}, "headerdata", one(header)).encode(),
			protect(t, key, nil, "payload", hello).encode()...)
	}
	other.refuses(t, "user id token", under(object{"useridtoken": json.RawMessage(ours.UserIDToken.Bytes())}), msl.ErrUserIDTokenNotDecrypted)
	other.refuses(t, "tokens of a user", under(object{"userauthdata": object{"scheme": "USER_ID_TOKEN", "authdata": json.RawMessage(
		userauth.UserIDTokenData(ours.MasterToken.Bytes(), ours.UserIDToken.Bytes()).AuthData)}}), msl.ErrUserAuthMasterTokenNotDecrypted)

	// A service token of another network is not opened.
	service := n.client.Held().ServiceTokens[0]
	if _, err := other.server.Receive(t.Context(), bytes.NewReader(under(nil))); err != nil || service.Opened {
		t.Errorf("%+v, %v", service, err)
	}
	other.seen = nil
	var out bytes.Buffer
	foreign := under(object{"servicetokens": []any{json.RawMessage(msl.ServiceTokenBytes(service))}})
	if err := other.server.Serve(t.Context(), "test", bytes.NewReader(foreign), &out, other.handler); err != nil || other.seen == nil {
		t.Fatalf("%s, %v", out.Bytes(), err)
	}
	if got := other.seen.ServiceTokens; len(got) != 1 || got[0].Opened || got[0].Data != nil {
		t.Errorf("service tokens %+v", got)
	}

	who := func(s msl.LocalEntity) (object, msl.Protector) {
		local := must(s.Credentials(t.Context()))
		return object{"entityauthdata": object{"scheme": s.Scheme(), "authdata": json.RawMessage(local.AuthData)}}, local.Protector
	}
	hidden, p := who(&entityauth.MTProtectedEntity{Hidden: other.psk, Token: ours.MasterToken, Keys: ours.Keys})
	other.refuses(t, "hidden entity", protect(t, p, hidden, "headerdata", one()).encode(), msl.ErrEntityAuthMasterTokenNotDecrypted)
	psk, p := who(n.psk)
	other.refuses(t, "pre-shared key", protect(t, p, psk, "headerdata", one()).encode(), msl.ErrMessageEntityDataBasedVerificationFailed)
}

// TestNetworksApartReplay counts the ids of one token separately in each network, and
// forgets the sessions of only one.
func TestNetworksApartReplay(t *testing.T) {
	a, b := newNeighbours(t)
	for range 3 {
		a.ask(t)
	}
	b.server.Issuer, b.server.State = a.server.Issuer, &msl.MemoryState{} // now the tokens are the same
	if got, err := b.server.Receive(t.Context(), bytes.NewReader(a.sent)); err != nil || got.NonReplayableID != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	a.refuses(t, "replayed", a.sent, msl.ErrMessageReplayed)
	b.refuses(t, "replayed", a.sent, msl.ErrMessageReplayed)
	b.server.Close()
	a.ask(t)
}

// Wrapping data of one network's ladder is invalid in another's.
func TestNetworksApartLadder(t *testing.T) {
	a, b := newNeighbours(t)
	device := newStore(t)
	ladder := &keyx.LadderOfferer{Form: keyx.JWKLadder, Store: device, Own: a.givePSK("device", device)}
	t.Cleanup(func() { ladder.Close() })
	own := entityauth.NewKeySet(b.psk.Keys.Encryption, b.psk.Keys.MAC, nil)
	climb := func(n *neighbour, entity msl.LocalEntity) (*msl.Response, error) {
		c := n.network.client(entity, ladder)
		c.Custody = msl.CustodyImported
		r, _, err := send(t, c, &msl.Request{Body: msl.BytesBody([]byte("x"))})
		return r, err
	}
	if _, err := climb(a, a.psk); err != nil {
		t.Fatal(err)
	}
	_, err := climb(b, &entityauth.PSKEntity{Identity: "device", Keys: own})
	wantPeerCode(t, err, msl.ErrKeyXWrappingKeyMissing)
}

// TestNoSharedState reads the source of the protocol engine: package variables are never
// changed, so that nothing passes from one network to another in a process. Pools of
// buffers, which hold nothing between two uses, are the exception.
func TestNoSharedState(t *testing.T) {
	skipWithRace(t)
	pools := map[string]bool{"scratch": true, "memories": true, "gzipWriters": true, "gzipReaders": true, "holds": true}
	packages, variables := map[string][]*ast.File{}, 0
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(set, path, nil, 0)
		packages[filepath.Dir(path)] = append(packages[filepath.Dir(path)], f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, files := range packages {
		names := map[string]bool{}
		for _, f := range files {
			for name, value := range packageVariables(f) {
				if name == "_" {
					continue
				}
				variables++
				names[name] = true
				if empty(value) && !pools[name] {
					t.Errorf("%s: variable %s may hold state", dir, name)
				}
			}
		}
		for _, f := range files {
			ast.Inspect(f, func(n ast.Node) bool {
				for _, target := range targets(n) {
					if id := root(target); id != nil && names[id.Name] && !local(f, id) {
						t.Errorf("%v: %s is changed", set.Position(n.Pos()), id.Name)
					}
				}
				return true
			})
		}
	}
	if variables < 15 {
		t.Errorf("%d variables found", variables)
	}
}

// packageVariables are the variables of a file, with their first values.
func packageVariables(f *ast.File) map[string]ast.Expr {
	all := map[string]ast.Expr{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for i, name := range v.Names {
				all[name.Name] = nil
				if i < len(v.Values) {
					all[name.Name] = v.Values[i]
				}
			}
		}
	}
	return all
}

// empty reports whether a value is there to be filled: none, an empty one, or a lock
// or a pool.
func empty(value ast.Expr) bool {
	switch v := value.(type) {
	case nil:
		return true
	case *ast.UnaryExpr:
		return empty(v.X)
	case *ast.CompositeLit:
		from := root(v.Type)
		return len(v.Elts) == 0 || from != nil && (from.Name == "sync" || from.Name == "atomic")
	case *ast.CallExpr:
		f := root(v.Fun)
		return f != nil && (f.Name == "make" || f.Name == "new")
	}
	return false
}

// targets returns the expressions that a statement changes, or passes on to be changed.
func targets(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (f.Name == "clear" || f.Name == "delete" || f.Name == "copy") {
			return n.Args[:1]
		}
	}
	return nil
}

// root is the variable at the beginning of an expression.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// local reports whether a name is declared inside a function.
func local(f *ast.File, id *ast.Ident) bool {
	return id.Obj != nil && f.Scope.Lookup(id.Name) != id.Obj
}
