/* CRC32C: published values, a bit-by-bit oracle, every way equal at every length and alignment. */
#include "core/crc32c.h"

#include "segue/segue.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const names[] = {"vpclmulqdq", "sse4.2", "table"};

/* The definition, a bit at a time. */
static uint32_t step(uint32_t crc, uint8_t byte)
{
	crc ^= byte;
	for (int bit = 0; bit < 8; bit++)
		crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
	return crc;
}

static uint32_t oracle(const uint8_t *bytes, size_t size)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < size; i++)
		crc = step(crc, bytes[i]);
	return ~crc;
}

static void fill(uint8_t *bytes, size_t size)
{
	unsigned seed = 20251122;

	cr_log_info("seed %u", seed);
	srandom(seed);
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)random();
}

/* 1: in use now; 0: this processor cannot. */
static bool use(const char *name)
{
	int rc = segue_crc32c_select(name);

	if (rc == SEGUE_ENOTFOUND)
		return false;
	cr_assert_eq(rc, SEGUE_OK);
	cr_assert_str_eq(segue_crc32c_name(), name);
	return true;
}

/* Appendix B.4 of RFC 3720, and the check value of the catalogue. */
Test(crc32c, published_values)
{
	uint8_t bytes[32];

	for (size_t w = 0; w < 3; w++) {
		if (!use(names[w]))
			continue;
		cr_assert_eq(segue_crc32c(0, "123456789", 9), 0xe3069283u);
		memset(bytes, 0, sizeof(bytes));
		cr_assert_eq(segue_crc32c(0, bytes, 32), 0x8a9136aau);
		memset(bytes, 0xff, sizeof(bytes));
		cr_assert_eq(segue_crc32c(0, bytes, 32), 0x62a8ab43u);
		for (uint8_t i = 0; i < 32; i++)
			bytes[i] = i;
		cr_assert_eq(segue_crc32c(0, bytes, 32), 0x46dd794eu);
	}
	/* The header of a record of 0 bytes as TensorFlow writes it: 29 03 98 07. */
	memset(bytes, 0, 8);
	cr_assert_eq(segue_crc32c_mask(segue_crc32c(0, bytes, 8)), 0x07980329u);
}

/* All lengths up to 3000 at all alignments to a vector, beginning with a register that is not 0. */
Test(crc32c, every_way_every_length)
{
	enum { SIZE = 3000, ALIGN = 64 };
	uint8_t *bytes = aligned_alloc(ALIGN, SIZE + ALIGN + 8);

	fill(bytes, SIZE + ALIGN);
	for (size_t w = 0; w < 3; w++) {
		if (!use(names[w]))
			continue;
		for (size_t at = 0; at < ALIGN; at++) {
			uint32_t start = (uint32_t)random(), crc = ~start;

			for (size_t size = 0; size <= SIZE; size++) {
				cr_assert_eq(segue_crc32c(start, bytes + at, size), ~crc,
					"%s: %zu bytes at %zu", names[w], size, at);
				crc = step(crc, bytes[at + size]);
			}
		}
	}
	free(bytes);
}

/* Lengths of one block or two, with all that can be left after them. */
Test(crc32c, every_way_in_blocks)
{
	enum { SIZE = 45000, STEP = 7 };
	uint8_t *bytes = malloc(SIZE);

	fill(bytes, SIZE);
	for (size_t w = 0; w < 3; w++) {
		uint32_t crc = UINT32_MAX;

		if (!use(names[w]))
			continue;
		for (size_t size = 0; size < SIZE; size++) {
			if (size % STEP == 0)
				cr_assert_eq(segue_crc32c(0, bytes, size), ~crc, "%s: %zu bytes",
					names[w], size);
			crc = step(crc, bytes[size]);
		}
	}
	free(bytes);
}

Test(crc32c, every_way_in_two_parts)
{
	enum { SIZE = 200000, TURNS = 60 };
	uint8_t *bytes = malloc(SIZE + TURNS);

	fill(bytes, SIZE + TURNS);
	for (size_t w = 0; w < 3; w++) {
		if (!use(names[w]))
			continue;
		for (int i = 0; i < TURNS; i++) {
			size_t size = (size_t)random() % SIZE, cut = (size_t)random() % (size + 1);
			uint32_t crc = segue_crc32c(0, bytes + i, cut);

			crc = segue_crc32c(crc, bytes + i + cut, size - cut);
			cr_assert_eq(
				crc, oracle(bytes + i, size), "%s %zu %zu", names[w], size, cut);
		}
	}
	free(bytes);
}

/* No byte outside is touched: the pages on both sides cannot be read. */
Test(crc32c, every_way_between_guards)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *bytes = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(bytes, MAP_FAILED);
	bytes += page;
	cr_assert_eq(mprotect(bytes, page, PROT_READ | PROT_WRITE), 0);
	fill(bytes, page);
	for (size_t w = 0; w < 3; w++) {
		if (!use(names[w]))
			continue;
		for (size_t size = 0; size <= page; size++) {
			const uint8_t *last = bytes + page - size;

			cr_assert_eq(segue_crc32c(0, bytes, size), oracle(bytes, size));
			cr_assert_eq(segue_crc32c(0, last, size), oracle(last, size));
		}
	}
	munmap(bytes - page, 3 * page);
}

/* What the factors of the folding rest on: x to the order is 1, and powers multiply. */
Test(crc32c, power)
{
	const uint64_t order = (UINT64_C(1) << 31) - 1;

	cr_assert_eq(segue_crc32c_power(0), UINT32_C(1) << 31);
	cr_assert_eq(segue_crc32c_power(1), UINT32_C(1) << 23);
	cr_assert_eq(segue_crc32c_power(4), 0x82f63b78u); /* x^32 mod P is P without x^32 */
	cr_assert_eq(segue_crc32c_power(order), segue_crc32c_power(0));
	/* x^-32 times x^96 is x^64; combine multiplies. */
	cr_assert_eq(segue_crc32c_combine(segue_crc32c_power(order - 4), 0, segue_crc32c_power(12)),
		segue_crc32c_power(8));
}

Test(crc32c, combine)
{
	uint8_t bytes[3000];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * i + 7);
	for (size_t cut = 0; cut <= sizeof(bytes); cut += 37) {
		size_t rest = sizeof(bytes) - cut;
		uint32_t crc = segue_crc32c_combine(segue_crc32c(0, bytes, cut),
			segue_crc32c(0, bytes + cut, rest), segue_crc32c_power(rest));

		cr_assert_eq(crc, oracle(bytes, sizeof(bytes)));
	}
}

Test(crc32c, select)
{
	cr_assert_eq(segue_crc32c_select("abacus"), SEGUE_EINVAL);
	cr_assert(use("table"));
	cr_assert_eq(segue_crc32c_select(NULL), SEGUE_OK);
#if defined(__x86_64__)
	const char *best = "table";

	if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"))
		best = "sse4.2";
	if (*best == 's' && __builtin_cpu_supports("avx512f") &&
		__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq"))
		best = "vpclmulqdq";
	cr_assert_str_eq(segue_crc32c_name(), best);
#endif
}
