/* Compressed clusters: what is packed comes back, QEMU's window is kept to, nonsense is refused. */
#include "base/test.h"
#include "disk/packing.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define SIZE 65536u

static uint8_t plain[SIZE], packed[SIZE + PACK_SLACK], back[SIZE];
static uint64_t state = 1;

static uint8_t any(void)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint8_t)(state >> 56);
}

static void make_noise(void)
{
    for (size_t i = 0; i < SIZE; i++)
        plain[i] = any();
}

/** Words of 16 random bytes in random order: every byte is as frequent as any other. */
static void make_words(size_t step)
{
    uint8_t words[64][16];

    for (size_t i = 0; i < sizeof(words); i++)
        words[i / 16][i % 16] = any();
    make_noise();
    for (size_t i = 0; i + 16 <= SIZE; i += step)
        memcpy(plain + i, words[any() % 64], 16);
}

static size_t pack(struct packer *p, enum pack_kind kind, size_t room)
{
    size_t size = 0;

    ASSERT_EQ(packer_pack(p, kind, plain, SIZE, packed, room, &size), 0);
    return size;
}

static void expect_back(struct packer *p, enum pack_kind kind, size_t size)
{
    size_t got = 0;

    memset(back, 0x55, SIZE);
    ASSERT_EQ(packer_unpack(p, kind, packed, size, back, SIZE, &got), 0);
    EXPECT_EQ(got, SIZE);
    EXPECT_MEM(back, plain, SIZE);
}

TEST(what_is_packed_comes_back)
{
    struct packer *p = packer_new();

    for (unsigned round = 0; round < 30; round++) { /* the same tools again and again */
        size_t step = 16 + round * 7;

        make_words(step);
        for (enum pack_kind kind = PACK_DEFLATE; kind <= PACK_ZSTD; kind++) {
            size_t size = pack(p, kind, SIZE);

            EXPECT_TRUE(size < SIZE - 100);
            memset(packed + size, 0xff, 512); /* the next cluster's, in the same sector */
            expect_back(p, kind, size + 512);
        }
    }
    packer_free(p);
}

TEST(repetitions_are_found_at_any_offset)
{
    struct packer *p = packer_new();

    for (size_t step = 16; step < 60; step++) {
        size_t size = 0;

        make_words(step);
        EXPECT_EQ(packer_pack(p, PACK_DEFLATE, plain, SIZE, packed, SIZE, &size), 0);
        EXPECT_TRUE(size < SIZE * 9 / 10);
    }
    packer_free(p);
}

TEST(noise_is_left_alone)
{
    struct packer *p = packer_new();
    size_t size = 0;

    make_noise();
    EXPECT_EQ(packer_pack(p, PACK_DEFLATE, plain, SIZE, packed, SIZE - 1, &size), -E2BIG);
    EXPECT_EQ(packer_pack(p, PACK_ZSTD, plain, SIZE, packed, SIZE - 1, &size), -E2BIG);
    size = pack(p, PACK_ZLIB, sizeof(packed)); /* for formats that have nothing else */
    expect_back(p, PACK_ZLIB, size);
    for (size_t i = 0; i < SIZE; i++) /* seven bits in a byte are worth packing */
        plain[i] &= 0x7f;
    EXPECT_TRUE(pack(p, PACK_DEFLATE, SIZE) < SIZE * 15 / 16);
    packer_free(p);
}

/** Output in small pieces makes zlib keep a window, and refuse what reaches beyond it. */
TEST(deflate_keeps_to_a_window_of_4_kib)
{
    struct packer *p = packer_new();

    make_noise();
    for (size_t i = 5000; i < SIZE; i++) /* worth it, if one could reach so far */
        plain[i] = i % 3 ? plain[i - 5000] : 'x';
    size_t size = pack(p, PACK_DEFLATE, SIZE);
    z_stream z = {.next_in = packed, .avail_in = (uInt)size};
    int rc = Z_OK;
    ASSERT_EQ(inflateInit2(&z, -12), Z_OK);
    for (size_t at = 0; at < SIZE && rc == Z_OK; at += 512) {
        z.next_out = back + at;
        z.avail_out = 512;
        rc = inflate(&z, Z_SYNC_FLUSH);
    }
    EXPECT_TRUE(rc == Z_OK || rc == Z_STREAM_END);
    EXPECT_EQ(z.total_out, SIZE);
    EXPECT_MEM(back, plain, SIZE);
    (void)inflateEnd(&z); /* frees */
    packer_free(p);
}

TEST(a_stream_that_is_cut_off_behind_its_last_byte_is_read)
{
    struct packer *p = packer_new();
    z_stream z = {.next_in = plain, .avail_in = SIZE, .next_out = packed, .avail_out = SIZE};

    make_words(20);
    ASSERT_EQ(deflateInit2(&z, 6, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    ASSERT_EQ(deflate(&z, Z_SYNC_FLUSH), Z_OK); /* all of it, and no end */
    expect_back(p, PACK_DEFLATE, z.total_out);
    (void)deflateEnd(&z); /* frees */
    packer_free(p);
}

TEST(nonsense_is_refused)
{
    struct packer *p = packer_new();
    size_t got;

    for (enum pack_kind kind = PACK_DEFLATE; kind <= PACK_ZSTD; kind++) {
        make_words(24);
        size_t size = pack(p, kind, SIZE);

        got = 0;
        int rc = packer_unpack(p, kind, packed, size / 2, back, SIZE, &got);
        EXPECT_TRUE(rc == -EIO || got < SIZE);
        EXPECT_TRUE(packer_unpack(p, kind, "", 0, back, SIZE, &got) == -EIO || !got);
        for (unsigned i = 0; i < 3000; i++) { /* no byte is written or read outside */
            for (size_t k = 0; k < 64; k++)
                packed[k] = any();
            (void)!packer_unpack(p, kind, packed, size, back, SIZE, &got);
        }
    }
    packer_free(p);
}

/** A frame that says it needs 2 GiB of memory to be read. */
TEST(a_frame_does_not_decide_on_memory)
{
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x03, 0x00, 0x10, 'a'};
    struct packer *p = packer_new();
    size_t got = 0;

    memcpy(packed, frame, sizeof(frame));
    int rc = packer_unpack(p, PACK_ZSTD, packed, sizeof(frame), back, SIZE, &got);
    EXPECT_TRUE(rc == -EIO || got < SIZE);
    packer_free(p);
}
