package msl_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// BenchmarkStream sends a payload to a server and another one back, over HTTP and
// in fact over the loopback interface, with all keys in memory. B/s counts both
// directions. The floor is the work that no implementation can avoid: AES-CBC, HMAC and
// the three layers of Base64 on the same bytes, by the standard library, done by
// the sender and undone by the receiver, on one processor. ratio is this package's
// throughput as a multiple of the floor's.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dMiB", size>>20), func(b *testing.B) {
			n := softNetwork(b)
			c := plain(n, n.pskClient("device"))
			overHTTP(b, n, c, &mslhttp.Handler{MaxBody: -1})
			mustSend(b, c, secret("get tokens"), 2)
			data := random(size)
			n.handler = func(_ context.Context, w *msl.ResponseWriter, m *msl.Message) error {
				if _, err := io.Copy(io.Discard, m.Body); err != nil {
					return err
				}
				_, err := w.Write(data)
				return err
			}
			b.SetBytes(2 * int64(size))
			var floor time.Duration
			for b.Loop() {
				if err := exchangeBytes(c, data); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				began := time.Now()
				for range 2 {
					if err := floorWork(data); err != nil {
						b.Fatal(err)
					}
				}
				floor += time.Since(began)
				b.StartTimer()
			}
			rate := float64(2*size*b.N) / 1e6
			b.ReportMetric(rate/floor.Seconds(), "floor-MB/s")
			b.ReportMetric(floor.Seconds()/b.Elapsed().Seconds(), "ratio")
		})
	}
}

func exchangeBytes(c *msl.Client, data []byte) error {
	r, err := c.Do(context.Background(), &msl.Request{Encrypted: true, Body: msl.BytesBody(data)})
	if err != nil {
		return err
	}
	defer r.Body.Close()
	n, err := io.Copy(io.Discard, r.Body)
	if err == nil && n != int64(len(data)) {
		err = fmt.Errorf("%d bytes came back", n)
	}
	return err
}

// floorWork carries data in chunks of 64 KiB.
func floorWork(data []byte) error {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return err
	}
	iv, mac := make([]byte, 16), hmac.New(sha256.New, make([]byte, 32))
	sum := func(p []byte) []byte {
		mac.Reset()
		mac.Write(p)
		return mac.Sum(nil)
	}
	encode, decode := base64.StdEncoding.AppendEncode, base64.StdEncoding.AppendDecode
	var inner, envelope, outer, back []byte
	for ; len(data) > 0; data = data[min(len(data), 64<<10):] {
		chunk := data[:min(len(data), 64<<10)]
		inner = encode(inner[:0], chunk)
		inner = append(inner, make([]byte, 16-len(inner)%16)...)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(inner, inner)
		envelope = encode(envelope[:0], inner)
		signature := sum(envelope)
		outer = encode(outer[:0], envelope)

		if envelope, err = decode(envelope[:0], outer); err != nil {
			return err
		}
		if !hmac.Equal(signature, sum(envelope)) {
			return fmt.Errorf("other signature")
		}
		if inner, err = decode(inner[:0], envelope); err != nil {
			return err
		}
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(inner, inner)
		back, err = decode(back[:0], bytes.TrimRight(inner, "\x00"))
		if err != nil || !bytes.Equal(back, chunk) {
			return fmt.Errorf("other data, %v", err)
		}
	}
	return nil
}
