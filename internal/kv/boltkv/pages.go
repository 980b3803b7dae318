package boltkv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/msl-hsm/msl-hsm/internal/kv"
)

// The layout of a bbolt file, version 2: pages in the byte order of the machine, the
// first two of which are meta pages.
const (
	pageHeader     = 16 // id (8), kind (2), count (2), overflow (4)
	pageElement    = 16
	metaSize       = 64
	metaMagic      = 0xED0CDAED
	metaVersion    = 2
	branchPage     = 0x01
	leafPage       = 0x02
	freelistPage   = 0x10
	bucketElement  = 0x01
	bucketHeader   = 16 // root page (8), sequence (8)
	noFreelist     = ^uint64(0)
	manyFree       = 0xFFFF // the count is in the first element
	maxTreeDepth   = 64
	maxPageSize    = 1 << 24
	minPageSize    = 1 << 10
	rootsAndLeaves = 2 // levels of buckets in these files: the root and its children
)

// pages checks that everything bbolt would follow stays inside the file and inside its
// page, without trusting any of it. These files have buckets only in the root, so any
// other bucket is also damage.
type pages struct {
	r      io.ReaderAt
	size   int64
	page   int64
	meta   meta
	inUse  map[uint64]bool
	isFree map[uint64]bool
}

type meta struct {
	root, freelist, end, tx uint64 // end is the first page never used
}

// A span is the range of keys allowed on a page: from lo up to, but excluding, hi.
// Either may be nil.
type span struct{ lo, hi []byte }

func damage(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{kv.ErrDamaged}, args...)...)
}

// readPages checks the newest state of a file, which is the one bbolt will use.
func readPages(r io.ReaderAt, size int64, pageSize int) (*pages, error) {
	if pageSize < minPageSize || pageSize > maxPageSize || pageSize&(pageSize-1) != 0 {
		return nil, damage("page size %d", pageSize)
	}
	c := &pages{r: r, size: size, page: int64(pageSize), inUse: map[uint64]bool{}, isFree: map[uint64]bool{}}
	if err := c.newestMeta(); err != nil {
		return nil, err
	}
	if err := c.freelist(); err != nil {
		return nil, err
	}
	return c, c.tree(c.meta.root, span{}, 1, 0)
}

func (c *pages) newestMeta() error {
	found := false
	for id := range int64(2) {
		b := make([]byte, pageHeader+metaSize)
		switch _, err := c.r.ReadAt(b, id*c.page); {
		case err == io.EOF: // the file ends before it
			continue
		case err != nil: // it may be the newest
			return diskFails(fmt.Errorf("read meta page %d: %w", id, err))
		}
		m, ok := parseMeta(b[pageHeader:], c.page)
		if ok && (!found || m.tx > c.meta.tx) {
			c.meta, found = m, true
		}
	}
	if !found {
		return damage("no valid meta page")
	}
	return nil
}

func parseMeta(b []byte, pageSize int64) (meta, bool) {
	order := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	ok := order.Uint32(b) == metaMagic && order.Uint32(b[4:]) == metaVersion &&
		int64(order.Uint32(b[8:])) == pageSize && order.Uint64(b[metaSize-8:]) == sum.Sum64()
	return meta{
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		end:      order.Uint64(b[40:]),
		tx:       order.Uint64(b[48:]),
	}, ok
}

// read reads a page with its overflow pages, and marks them as in use.
func (c *pages) read(id uint64) (kind uint16, b []byte, err error) {
	last := uint64(c.size / c.page) // also keeps the products below from overflowing
	if id < 2 || id >= c.meta.end || id >= last {
		return 0, nil, damage("page %d is not in the file", id)
	}
	head := make([]byte, pageHeader)
	if err := c.readAt(head, id); err != nil {
		return 0, nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || id+more >= c.meta.end || id+more >= last {
		return 0, nil, damage("page %d has a bad header", id)
	}
	for p := id; p <= id+more; p++ {
		if c.inUse[p] || c.isFree[p] {
			return 0, nil, damage("page %d is used twice", p)
		}
		c.inUse[p] = true
	}
	b = make([]byte, (int64(more)+1)*c.page)
	if err := c.readAt(b, id); err != nil {
		return 0, nil, err
	}
	return binary.NativeEndian.Uint16(b[8:]), b, nil
}

// readAt reads from the beginning of a page. A failure to read it says nothing about its
// content.
func (c *pages) readAt(b []byte, id uint64) error {
	_, err := c.r.ReadAt(b, int64(id)*c.page)
	switch {
	case err == io.EOF:
		return damage("page %d: %w", id, err)
	case err != nil:
		return diskFails(fmt.Errorf("read page %d: %w", id, err))
	}
	return nil
}

// diskFails adds what to do about an error of the operating system.
func diskFails(err error) error {
	return fmt.Errorf("%w: the disk is failing, and the kernel log says more: copy the file to another one, or restore a backup there", err)
}

func (c *pages) freelist() error {
	if c.meta.freelist == noFreelist {
		return nil
	}
	kind, b, err := c.read(c.meta.freelist)
	if err != nil {
		return err
	}
	if kind != freelistPage {
		return damage("page %d is not the list of free pages", c.meta.freelist)
	}
	ids := b[pageHeader:]
	count := uint64(binary.NativeEndian.Uint16(b[10:]))
	if count == manyFree {
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return damage("the list of free pages is too long")
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		id := binary.NativeEndian.Uint64(ids)
		if id < 2 || id >= c.meta.end || c.isFree[id] || c.inUse[id] {
			return damage("page %d cannot be free", id)
		}
		c.isFree[id] = true
	}
	return nil
}

// tree checks the tree of a bucket, starting at one of its pages. The level is that of
// the bucket.
func (c *pages) tree(id uint64, s span, level, depth int) error {
	if depth > maxTreeDepth {
		return damage("too many levels of pages")
	}
	kind, b, err := c.read(id)
	if err != nil {
		return err
	}
	switch kind {
	case leafPage:
		return c.leaf(id, b, s, level)
	case branchPage:
		return c.branch(id, b, s, level, depth)
	}
	return damage("page %d is of unknown kind", id)
}

func (c *pages) branch(id uint64, b []byte, s span, level, depth int) error {
	count := int(binary.NativeEndian.Uint16(b[10:]))
	if count == 0 || pageHeader+count*pageElement > len(b) {
		return damage("page %d has a bad count", id)
	}
	keys := make([][]byte, count+1)
	keys[count] = s.hi
	for i := range count {
		at := pageHeader + i*pageElement
		key, _, ok := content(b, at, binary.NativeEndian.Uint32(b[at:]), binary.NativeEndian.Uint32(b[at+4:]), 0)
		if !ok || !s.has(key) {
			return damage("page %d has a bad key", id)
		}
		keys[i], s.lo = key, append(key[:len(key):len(key)], 0)
	}
	for i := range count {
		child := binary.NativeEndian.Uint64(b[pageHeader+i*pageElement+8:])
		if err := c.tree(child, span{keys[i], keys[i+1]}, level, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *pages) leaf(id uint64, b []byte, s span, level int) error {
	count := int(binary.NativeEndian.Uint16(b[10:]))
	if pageHeader+count*pageElement > len(b) {
		return damage("page %d has a bad count", id)
	}
	order := binary.NativeEndian
	for i := range count {
		at := pageHeader + i*pageElement
		key, value, ok := content(b, at, order.Uint32(b[at+4:]), order.Uint32(b[at+8:]), order.Uint32(b[at+12:]))
		if !ok || !s.has(key) {
			return damage("page %d has a bad key", id)
		}
		s.lo = append(key[:len(key):len(key)], 0)
		if err := c.element(id, order.Uint32(b[at:]), value, level); err != nil {
			return err
		}
	}
	return nil
}

// element checks an element of a leaf: a bucket on the first level, else a record.
func (c *pages) element(id uint64, kind uint32, value []byte, level int) error {
	if level == rootsAndLeaves {
		if kind != 0 {
			return damage("page %d has a bucket where none may be", id)
		}
		return nil
	}
	if kind != bucketElement || len(value) < bucketHeader {
		return damage("page %d has a bad bucket", id)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.tree(root, span{}, level+1, 0)
	}
	// A small bucket is stored inside its parent, as a page without a number.
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return damage("page %d has a bad bucket", id)
	}
	return c.leaf(id, inline, span{}, level+1)
}

// content returns the key and value of the element at an offset of a page.
func content(b []byte, at int, pos, keySize, valueSize uint32) (key, value []byte, ok bool) {
	start := uint64(at) + uint64(pos)
	middle := start + uint64(keySize)
	end := middle + uint64(valueSize)
	if end > uint64(len(b)) {
		return nil, nil, false
	}
	return b[start:middle], b[middle:end], true
}

// has reports whether a key belongs on the page. No key is empty.
func (s span) has(key []byte) bool {
	return len(key) > 0 && bytes.Compare(key, s.lo) >= 0 && (s.hi == nil || bytes.Compare(key, s.hi) < 0)
}
