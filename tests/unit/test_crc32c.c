/* CRC32C: published values, a bit-by-bit oracle, every way equal at every length and alignment. */
#include "source/tfrecord/crc32c.h"

#include "segue/segue.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"vpclmulqdq", "sse4.2", "table"};

/* The definition, a bit at a time. */
static uint32_t oracle(const uint8_t *bytes, size_t size)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < size; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78u : crc >> 1;
	}
	return ~crc;
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

Test(crc32c, every_way_every_length)
{
	enum { SIZE = 20000 };
	unsigned seed = 20251122;
	uint8_t *bytes = malloc(SIZE + 64);

	cr_log_info("seed %u", seed);
	srandom(seed);
	for (size_t i = 0; i < SIZE + 64; i++)
		bytes[i] = (uint8_t)random();
	for (size_t w = 0; w < 3; w++) {
		if (!use(names[w]))
			continue;
		for (size_t size = 0; size < 1200; size++)
			cr_assert_eq(segue_crc32c(0, bytes + size % 61, size),
				oracle(bytes + size % 61, size), "%s %zu", names[w], size);
		for (int i = 0; i < 60; i++) {
			size_t size = (size_t)random() % SIZE, cut = (size_t)random() % (size + 1);
			uint32_t crc = segue_crc32c(0, bytes + i, cut);

			crc = segue_crc32c(crc, bytes + i + cut, size - cut);
			cr_assert_eq(
				crc, oracle(bytes + i, size), "%s %zu %zu", names[w], size, cut);
		}
	}
	free(bytes);
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
	if (__builtin_cpu_supports("sse4.2"))
		cr_assert_str_neq(segue_crc32c_name(), "table");
#endif
}
