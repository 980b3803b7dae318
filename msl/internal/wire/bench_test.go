package wire

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// header is about as large as the header of a message with a master token.
func header(tb testing.TB) []byte {
	e := NewEncoder(1024)
	e.Begin()
	e.BeginMember("mastertoken")
	e.Bytes("tokendata", bytes.Repeat([]byte{1}, 300))
	e.Bytes("signature", make([]byte, 32))
	e.End()
	e.Bytes("headerdata", bytes.Repeat([]byte{2}, 300))
	e.Bytes("signature", make([]byte, 32))
	e.Int("messageid", 9007199254740992)
	e.Bool("renewable", true)
	e.Strings("compressionalgos", []string{GZIP, LZW})
	e.End()
	if _, err := Parse(e.Encoded(), Limits{}); err != nil {
		tb.Fatal(err)
	}
	return e.Encoded()
}

func payload(size int) []byte {
	return []byte(`{"payload":"` + strings.Repeat("Q", size) + `","signature":"AA=="}`)
}

func BenchmarkParse(b *testing.B) {
	for _, in := range [][]byte{header(b), payload(1 << 20)} {
		b.Run(fmt.Sprint(len(in)), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(in, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecoder(b *testing.B) {
	for _, in := range [][]byte{header(b), payload(1 << 20)} {
		b.Run(fmt.Sprint(len(in)), func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NewDecoder(bytes.NewReader(in), Limits{}).First(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScan is the part of the Decoder that finds the end of an object.
func BenchmarkScan(b *testing.B) {
	in := payload(1 << 20)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		var s scanner
		if done, err := s.run(in); !done || err != nil {
			b.Fatal(done, err)
		}
	}
}

func BenchmarkEncoder(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		header(b)
	}
}

func BenchmarkMembers(b *testing.B) {
	o, err := Parse(header(b), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Int("messageid"); err != nil {
			b.Fatal(err)
		}
		if _, err := o.Bytes("headerdata"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBase64(b *testing.B) {
	decoded := bytes.Repeat([]byte("ABC"), 1<<9)
	encoded, room := []byte(encodeBase64(decoded)), make([]byte, 0, 4<<9)
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(decoded)))
		for b.Loop() {
			if _, err := decodeBase64(room[:len(decoded)], encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(decoded)))
		for b.Loop() {
			appendBase64(room, decoded)
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 2000)
	for _, size := range []int{1 << 10, 1 << 16} {
		for _, algo := range []string{GZIP, LZW} {
			in := []byte(text[:size])
			c, _ := Compress(algo, in)
			b.Run(fmt.Sprint(algo, "/", size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					Compress(algo, in)
				}
			})
			b.Run(fmt.Sprint(algo, "/de/", size), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					Decompress(algo, c, Inflation{Ratio: 200})
				}
			})
		}
	}
}
