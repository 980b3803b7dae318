package auditlog

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"time"
)

// checkpoint writes a mark, signs it, writes the signature, and syncs them to disk.
// Records that arrive in the meantime do not wait for the key.
func (l *Log) checkpoint() {
	mark, covered, err := l.putMark()
	var signature []byte
	if err == nil && mark.N > 0 {
		signature, err = l.c.Signer.Sign(rand.Reader, digest(l.name, mark, l.keyID), crypto.SHA256)
	}
	if signature != nil && err == nil {
		l.mu.Lock()
		l.add(line{Record: Record{Event: eventCheckpoint, Key: l.keyID}, ownFields: ownFields{At: mark.N, Signature: signature}})
		l.unsigned -= covered
		err = l.flush()
		l.mu.Unlock()
	}
	l.settle(err)
}

// putMark writes what is pending, and after it a mark, unless the last line is already one:
// while the disk is full or the key is away, each further try would add another. It returns
// the mark and how many records it covers; with nothing to sign, the mark is zero.
func (l *Log) putMark() (mark Position, covered int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.put(); err != nil || l.c.Signer == nil || l.unsigned == 0 && l.failed == nil {
		return mark, 0, err
	}
	if l.mark != l.last {
		l.add(line{Record: Record{Event: eventMark}})
		l.mark = l.last
	}
	return l.mark, l.unsigned, l.flush()
}

// settle syncs what was written to disk, and reports the result.
func (l *Log) settle(err error) {
	if err == nil {
		err = l.file.Sync()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.noteFailure(err)
		return
	}
	last := l.last.String()
	l.Outage.Worked(time.Now(), func() { l.c.Log.Info("the audit log can be written again", "file", l.c.Path, "last", last) })
	l.failed = nil
	if l.unsigned > 0 {
		l.sign.Reset(l.c.Interval)
	}
}

// verifySignature verifies the signature of a checkpoint.
func verifySignature(key crypto.PublicKey, digest, signature []byte) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature)
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, signature) {
			return fmt.Errorf("ecdsa: verification error")
		}
		return nil
	}
	return fmt.Errorf("a %T verifies no audit log", key)
}
