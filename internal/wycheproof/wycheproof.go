// Package wycheproof runs an implementation on the test vectors of Project Wycheproof:
// unusual inputs, each with the verdict of a sound implementation. It is for tests. The
// files, with their license and origin, are in testdata.
package wycheproof

import (
	"compress/gzip"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A File is one file of vectors, for one algorithm.
type File struct {
	Name      string `json:"-"` // aes_wrap
	Algorithm string
	Count     int     `json:"numberOfTests"`
	Groups    []Group `json:"testGroups"`
}

// A Group is the common part of some vectors. Sizes are in bits.
type Group struct {
	KeySize int
	TagSize int
	Hash    string `json:"sha"`             // SHA-256
	Public  Hex    `json:"publicKeyDer"`    // a SubjectPublicKeyInfo
	Private Hex    `json:"privateKeyPkcs8"` // a PrivateKeyInfo
	Tests   []Vector
}

// A Vector is one input, with its verdict. Which fields it has depends on the algorithm.
type Vector struct {
	ID         int `json:"tcId"`
	Comment    string
	Flags      []string // what is odd about it
	Result     string   // valid, invalid or acceptable
	Key        Hex
	IV         Hex
	AAD        Hex
	Message    Hex `json:"msg"`
	Ciphertext Hex `json:"ct"`
	Tag        Hex
	Label      Hex
	Signature  Hex `json:"sig"`
}

// Hex is bytes written as hexadecimal digits.
type Hex []byte

// UnmarshalText reads hexadecimal digits.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// String returns the vector's name in its file, and what is odd about it.
func (v Vector) String() string {
	return fmt.Sprintf("vector %d (%s, %s: %s)", v.ID, v.Result, strings.Join(v.Flags, " "), v.Comment)
}

//go:embed testdata/*.json.gz
var files embed.FS

// A T is the part of *testing.T that this package uses.
type T interface {
	Helper()
	Log(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Read reads a file by its name, such as aes_wrap.
func Read(t T, name string) File {
	t.Helper()
	compressed, err := files.Open("testdata/" + name + ".json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer compressed.Close()
	text, err := gzip.NewReader(compressed)
	if err != nil {
		t.Fatal(err)
	}
	f := File{Name: name}
	if err := json.NewDecoder(text).Decode(&f); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if n := f.len(); n != f.Count || n == 0 {
		t.Fatalf("%s has %d vectors instead of %d", name, n, f.Count)
	}
	return f
}

func (f File) len() (n int) {
	for _, g := range f.Groups {
		n += len(g.Tests)
	}
	return n
}

// Sample returns f with at most alike vectors of each kind: those with the same verdict,
// flags, and sizes of key and tag.
func (f File) Sample(alike int) File {
	seen := map[string]int{}
	groups := slices.Clone(f.Groups)
	for i, g := range groups {
		groups[i].Tests = slices.DeleteFunc(slices.Clone(g.Tests), func(v Vector) bool {
			kind := fmt.Sprint(v.Result, v.Flags, len(v.Key), g.KeySize, g.TagSize, g.Hash)
			seen[kind]++
			return seen[kind] > alike
		})
	}
	f.Groups = groups
	return f
}
