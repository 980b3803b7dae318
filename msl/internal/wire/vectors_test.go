package wire

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// readVectors reads a file of vectors, which were recorded from an MSL stack
// that is more lenient than this one.
func readVectors(tb testing.TB, file string, into any) {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("../../../testdata/vectors/spec", file))
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		tb.Fatal(err)
	}
}

type jsonVectors struct {
	Encode []encodeVector `json:"encode_values"`
	Parse  []parseVector
	Tokens []tokenVector `json:"tokenize"`
}

type encodeVector struct {
	Type     string
	Encoding struct{ B64 []byte }
}

type parseVector struct {
	Input    []byte `json:"input_b64"`
	Accepted bool
	Members  map[string]memberVector
}

type memberVector struct {
	Kind   string
	Long   *int64
	Bool   *bool
	String *string
	Bytes  *string
}

type tokenVector struct {
	Input   []byte `json:"input_b64"`
	Objects []string
	End     string
}

func readJSONVectors(tb testing.TB) (v jsonVectors) {
	readVectors(tb, "json.json", &v)
	return v
}

type base64Vectors struct {
	Decode []base64Vector
	URL    []base64Vector `json:"b64url_decode"`
}

type base64Vector struct {
	Input string
	Hex   *string
}

func readBase64Vectors(tb testing.TB) (v base64Vectors) {
	readVectors(tb, "base64.json", &v)
	return v
}

type compressionVector struct {
	Data     []byte  `json:"data_b64"`
	LZW      []byte  `json:"lzw_b64"`
	GZIP     *string `json:"gzip_b64"`
	GZIPUsed bool    `json:"gzip_used"`
	LZWUsed  bool    `json:"lzw_used"`
}

func readCompressionVectors(tb testing.TB) []compressionVector {
	var v struct{ Cases []compressionVector }
	readVectors(tb, "compression.json", &v)
	return v.Cases
}

func mustBase64(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
