package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
)

func TestCompressionVectors(t *testing.T) {
	for i, v := range readCompressionVectors(t) {
		got, err := Compress(LZW, v.Data)
		if err != nil || !bytes.Equal(got, v.LZW) {
			t.Errorf("%d: LZW: got %.20x, %v, want %.20x", i, got, err, v.LZW)
		}
		if used := len(got) < len(v.Data); used != v.LZWUsed {
			t.Errorf("%d: LZW used: %v", i, used)
		}
		decompresses(t, LZW, v.LZW, v.Data)
		if v.GZIP != nil {
			decompresses(t, GZIP, mustBase64(t, *v.GZIP), v.Data)
		}
		got, err = Compress(GZIP, v.Data)
		if err != nil {
			t.Errorf("%d: GZIP: %v", i, err)
		}
		if used := len(got) < len(v.Data); used != v.GZIPUsed {
			t.Errorf("%d: GZIP used: %v", i, used)
		}
		decompresses(t, GZIP, got, v.Data)
	}
}

func decompresses(t *testing.T, algo string, data, want []byte) {
	t.Helper()
	got, err := Decompress(algo, data, Inflation{Ratio: 200})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %.20x, %v, want %.20x", algo, got, err, want)
	}
}

func TestDecompressEmpty(t *testing.T) {
	if _, err := Decompress(GZIP, nil, Inflation{Ratio: 200}); !errors.Is(err, ErrCompression) {
		t.Errorf("GZIP: got %v", err)
	}
	if got, err := Decompress(LZW, nil, Inflation{Ratio: 200}); err != nil || len(got) != 0 {
		t.Errorf("LZW: got %x, %v", got, err)
	}
}

func TestUnknownAlgorithm(t *testing.T) {
	for _, name := range []string{"", "gzip", "ZIP"} {
		if _, err := Compress(name, nil); !errors.Is(err, ErrUnknownAlgorithm) {
			t.Errorf("%q: got %v", name, err)
		}
		if _, err := Decompress(name, nil, Inflation{Ratio: 1}); !errors.Is(err, ErrUnknownAlgorithm) {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// codes packs LZW codes as an encoder would.
func codes(cs ...uint32) []byte {
	var w bitWriter
	for i, c := range cs {
		w.write(c, lzwWidth(i))
	}
	return w.flush()
}

func TestDecompressDamaged(t *testing.T) {
	good, err := Compress(GZIP, []byte("some data some data some data"))
	if err != nil {
		t.Fatal(err)
	}
	wrongSum := bytes.Clone(good)
	wrongSum[len(wrongSum)-8]++
	for _, c := range []struct {
		name, algo string
		data       []byte
	}{
		{"no header", GZIP, []byte("some data")},
		{"truncated header", GZIP, good[:5]},
		{"truncated data", GZIP, good[:len(good)-9]},
		{"truncated trailer", GZIP, good[:len(good)-1]},
		{"wrong checksum", GZIP, wrongSum},
		{"trailing bytes", GZIP, append(bytes.Clone(good), 0)},
		{"second code not in the table", LZW, codes('a', 257)},
		{"later code not in the table", LZW, codes('a', 256, 'b', 259)},
		{"code far out", LZW, codes('a', 511)},
	} {
		if got, err := Decompress(c.algo, c.data, Inflation{Ratio: 200}); !errors.Is(err, ErrCompression) {
			t.Errorf("%s %s: got %q, %v", c.algo, c.name, got, err)
		}
	}
}

// RFC 1952 calls a sequence of members one file.
func TestGZIPMembers(t *testing.T) {
	a, _ := Compress(GZIP, []byte("one "))
	b, _ := Compress(GZIP, []byte("two"))
	decompresses(t, GZIP, append(a, b...), []byte("one two"))
}

// The reader stops when no whole code is left, whatever the bits are.
func TestLZWLastBits(t *testing.T) {
	decompresses(t, LZW, codes('a'), []byte("a"))
	decompresses(t, LZW, []byte{'a', 0xff}, []byte("a"))
	decompresses(t, LZW, codes('a', 256, 'b', 258), []byte("aaabb"+"b"))
}

func TestDecompressRatio(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, algo := range []string{GZIP, LZW} {
		c, err := Compress(algo, zeros)
		if err != nil {
			t.Fatal(err)
		}
		exact := (len(zeros) + len(c) - 1) / len(c)
		for ratio, ok := range map[int]bool{
			math.MinInt: false, 0: false, 1: false, exact - 1: false, exact: true, math.MaxInt: true,
		} {
			got, err := Decompress(algo, c, Inflation{Ratio: ratio})
			if ok != (err == nil && bytes.Equal(got, zeros)) || !ok && !errors.Is(err, ErrLimit) {
				t.Errorf("%s %d: got %d bytes, %v", algo, ratio, len(got), err)
			}
		}
	}
}

func TestDecompressRatioIsInclusive(t *testing.T) {
	for _, algo := range []string{GZIP, LZW} {
		for n := range 300 {
			data := bytes.Repeat([]byte{'x'}, n)
			c, _ := Compress(algo, data)
			_, err := Decompress(algo, c, Inflation{Ratio: 1})
			if ok := n <= len(c); ok != (err == nil) {
				t.Errorf("%s: %d bytes from %d: %v", algo, n, len(c), err)
			}
		}
	}
}

// lzwByBook is LZW as a textbook has it, with strings in a map.
func lzwByBook(data []byte) []byte {
	table := map[string]uint32{}
	for i := range 256 {
		table[string([]byte{byte(i)})] = uint32(i)
	}
	var cs []uint32
	match := ""
	for _, b := range data {
		next := match + string([]byte{b})
		if _, ok := table[next]; !ok {
			cs = append(cs, table[match])
			table[next] = uint32(len(table))
			next = string([]byte{b})
		}
		match = next
	}
	if match != "" {
		cs = append(cs, table[match])
	}
	return codes(cs...)
}

// TestLZWTable crosses the widths of codes and the sizes of the table.
func TestLZWTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, symbols := range []int{1, 2, 3, 20, 256} {
		for _, size := range []int{1, 2, 255, 256, 257, 1000, 70000} {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(r.IntN(symbols))
			}
			got := compressLZW(data)
			if !bytes.Equal(got, lzwByBook(data)) {
				t.Errorf("%d of %d symbols: wrong", size, symbols)
			}
			decompresses(t, LZW, got, data)
		}
	}
}

// Readers and writers are reused, also after they have failed.
func TestGZIPPool(t *testing.T) {
	var foreign bytes.Buffer
	w, _ := gzip.NewWriterLevel(&foreign, gzip.BestCompression)
	w.Write([]byte("from elsewhere"))
	w.Close()
	for range 100 {
		if _, err := Decompress(GZIP, foreign.Bytes()[:20], Inflation{Ratio: 200}); err == nil {
			t.Fatal("accepted")
		}
		decompresses(t, GZIP, foreign.Bytes(), []byte("from elsewhere"))
	}
}

// TestGZIPSizes compresses the text of this package, and strings that have no words, in
// pieces: the output is at most a fiftieth longer than the standard library's.
func TestGZIPSizes(t *testing.T) {
	var random []byte
	for r := rand.New(rand.NewPCG(1, 2)); len(random) < 6<<10; {
		random = binary.NativeEndian.AppendUint64(random, r.Uint64())
	}
	text, err := os.ReadFile("parse.go")
	if err != nil {
		t.Fatal(err)
	}
	standard := gzip.NewWriter(nil)
	for name, data := range map[string][]byte{"text": text, "Base64": []byte(encodeBase64(random)), "hex": hex.AppendEncode(nil, random)} {
		for _, size := range []int{leastGain, 200, 500, maxShort, 4 << 10, len(data)} {
			ours, theirs := 0, 0
			for piece := range slices.Chunk(data, size) {
				c, err := Compress(GZIP, piece)
				if err != nil {
					t.Fatal(err)
				}
				decompresses(t, GZIP, c, piece)
				ours, theirs = ours+min(len(c), len(piece)), theirs+min(compressedBy(standard, piece), len(piece))
			}
			if 100*ours > 102*theirs {
				t.Errorf("%s in pieces of %d: %d bytes, and %d by the standard library", name, size, ours, theirs)
			}
		}
	}
}

// compressedBy is how long data becomes by a writer.
func compressedBy(w *gzip.Writer, data []byte) int {
	var out bytes.Buffer
	w.Reset(&out)
	w.Write(data)
	w.Close()
	return out.Len()
}

// A limit is checked before memory is allocated, in bytes whatever the ratio.
func TestInflationIsBounded(t *testing.T) {
	const size = 3 << 20
	for _, algo := range []string{GZIP, LZW} {
		bomb, err := Compress(algo, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		for _, most := range []int{1, 100, 1 << 10, 1 << 20, size - 1} {
			held := 0
			hold := func(n int) error { held = max(held, n); return nil }
			before := allocated()
			_, err := Decompress(algo, bomb, Inflation{Ratio: 1 << 20, Most: most, Hold: hold})
			if !errors.Is(err, ErrTooLong) {
				t.Errorf("%s into %d bytes: %v", algo, most, err)
			}
			if table := 4 * (len(bomb) + 1); held > most+table {
				t.Errorf("%s into %d bytes: %d are held", algo, most, held)
			}
			if used := allocated() - before; used > uint64(3*most+8*len(bomb)+128<<10) {
				t.Errorf("%s into %d bytes: %d were allocated", algo, most, used)
			}
		}
		out, err := Decompress(algo, bomb, Inflation{Ratio: 1 << 20, Most: size})
		if err != nil || len(out) != size {
			t.Errorf("%s: %d bytes, %v", algo, len(out), err)
		}
		full := errors.New("no memory left")
		if _, err := Decompress(algo, bomb, Inflation{Ratio: 1 << 20, Hold: func(n int) error {
			if n > size/2 {
				return full
			}
			return nil
		}}); !errors.Is(err, full) {
			t.Errorf("%s: %v where nothing more may be held", algo, err)
		}
	}
}

// allocated returns how many bytes were allocated in total.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
