/* SPDX-License-Identifier: ISC */
/*
 * Calls of a ramtree that must not fail; see trees.h.
 */
#include "tests/trees.h"

const uint32_t tree_sector_sizes[TREE_SECTOR_SIZES] = {512, 1024, 2048, 4096,
                                                       65536};

void
tree_write(struct ramtree *tree, uint64_t offset, const void *from,
           uint64_t length)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)from, .iov_len = length};
    struct iov_view view = {.iov = &iov, .count = 1, .length = length};
    bool changed;

    assert_true(ramtree_write(tree, offset, view, NULL, &changed));
    assert_true(changed || length == 0);
}

struct block *
tree_payload(const void *from, uint64_t length)
{
    struct block *block = block_alloc((uint32_t)length);

    assert_non_null(block);
    memcpy(block->data, from, length);
    return block;
}

void
tree_write_payload(struct ramtree *tree, uint64_t offset, struct block *payload)
{
    struct iovec iov = {.iov_base = payload->data, .iov_len = payload->size};
    struct iov_view view = {.iov = &iov, .count = 1, .length = payload->size};
    bool changed;

    assert_true(ramtree_write(tree, offset, view, payload, &changed));
    assert_true(changed);
}

void
tree_read(struct ramtree *tree, uint64_t offset, uint8_t *to, uint64_t length)
{
    struct ramtree_piece piece[3];

    while (length > 0) {
        size_t count = ramtree_get(tree, offset, length, piece, 3);
        assert_true(count > 0);
        for (size_t i = 0; i < count; i++) {
            assert_true(piece[i].length > 0 && piece[i].length <= length);
            if (piece[i].block != NULL)
                memcpy(to, piece[i].data, piece[i].length);
            else
                memset(to, 0, piece[i].length);
            block_put(piece[i].block);
            to += piece[i].length;
            offset += piece[i].length;
            length -= piece[i].length;
        }
    }
}

void
tree_zero(struct ramtree *tree, uint64_t offset, uint64_t length, bool mapped)
{
    bool changed;

    assert_true(ramtree_zero(tree, offset, length, mapped, &changed));
}

uint64_t
tree_seek(struct ramtree *tree, uint64_t offset, bool wanted)
{
    uint64_t size = ramtree_size(tree);
    bool mapped;

    if (offset == size)
        return size;
    uint64_t end = ramtree_run(tree, offset, size, &mapped);
    return mapped == wanted ? offset : end;
}
