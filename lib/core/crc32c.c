/*
 * CRC32C: slicing by eight; SSE4.2 over three streams; folding with 512-bit carry-less products.
 * The streams are those of Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32
 * Instruction" (Intel, 2011), the folding that of "Fast CRC Computation for Generic Polynomials
 * Using PCLMULQDQ Instruction" (Intel, 2009), with more lanes, and with the instruction for its
 * last steps.
 */
#include "core/crc32c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/error.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words of the stream are little-endian");

/* The polynomial with its bits reflected: bit 31 is the coefficient of x^0. */
#define POLYNOMIAL 0x82f63b78u

/* Works on the register itself: the inversions before and after are segue_crc32c's. */
typedef uint32_t crc_fn(uint32_t crc, const uint8_t *bytes, size_t size);

struct way {
	const char *name;
	crc_fn *run;
	int (*available)(void);
};

static uint32_t slices[8][256];

/* a * b mod P. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & (0u - (a >> 31));
		a <<= 1;
		b = (b >> 1) ^ (POLYNOMIAL & (0u - (b & 1)));
	}
	return product;
}

uint32_t segue_crc32c_power(uint64_t size)
{
	uint32_t power = 1u << 31;  /* x^0 */
	uint32_t square = 1u << 23; /* x^8, then its squares */

	for (; size; size >>= 1) {
		if (size & 1)
			power = multiply(power, square);
		square = multiply(square, square);
	}
	return power;
}

uint32_t segue_crc32c_combine(uint32_t first, uint32_t second, uint32_t power)
{
	return multiply(first, power) ^ second;
}

static uint64_t load64(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

static uint32_t run_table(uint32_t crc, const uint8_t *bytes, size_t size)
{
	for (; size >= 8; size -= 8, bytes += 8) {
		uint64_t word = load64(bytes) ^ crc;

		crc = slices[7][word & 255] ^ slices[6][word >> 8 & 255] ^
		      slices[5][word >> 16 & 255] ^ slices[4][word >> 24 & 255] ^
		      slices[3][word >> 32 & 255] ^ slices[2][word >> 40 & 255] ^
		      slices[1][word >> 48 & 255] ^ slices[0][word >> 56];
	}
	for (; size; size--)
		crc = slices[0][(crc ^ *bytes++) & 255] ^ (crc >> 8);
	return crc;
}

static int always(void)
{
	return 1;
}

static void make_slices(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;

		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (POLYNOMIAL & (0u - (crc & 1)));
		slices[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int k = 1; k < 8; k++)
			slices[k][i] = slices[0][slices[k - 1][i] & 255] ^ (slices[k - 1][i] >> 8);
}

#if defined(__x86_64__)

/* Bytes a stream, when three go side by side: the instruction takes three cycles, starts each. */
#define LONG_STREAM  2048
#define SHORT_STREAM 256

/* shift[k][v]: the register v << 8k after so many zero bytes. */
static uint32_t long_shift[4][256], short_shift[4][256];

/*
 * What words of 64 bits are multiplied by to fold them over those that follow, by falling distance:
 * factors[MOST_WORDS - k] is x^(64 k - 32), k from 0. A 128-bit lane that k words follow takes two
 * neighbours, k + 1 for its first word and k; the four lanes of a vector take eight.
 */
#define MOST_WORDS 55
static _Alignas(64) uint64_t factors[MOST_WORDS + 1];

#define SSE42 __attribute__((target("sse4.2")))
#define WIDE  __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2")))

static uint32_t shift(uint32_t table[4][256], uint64_t crc)
{
	return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^
	       table[3][crc >> 24 & 255];
}

SSE42 static uint32_t run_three(
	uint32_t crc, const uint8_t *bytes, size_t stream, uint32_t table[4][256])
{
	uint64_t a = crc, b = 0, c = 0;

	for (size_t i = 0; i < stream; i += 8) {
		a = _mm_crc32_u64(a, load64(bytes + i));
		b = _mm_crc32_u64(b, load64(bytes + stream + i));
		c = _mm_crc32_u64(c, load64(bytes + 2 * stream + i));
	}
	return shift(table, shift(table, a) ^ b) ^ (uint32_t)c;
}

SSE42 static uint32_t run_one(uint32_t crc, const uint8_t *bytes, size_t size)
{
	uint64_t word = crc;

	for (; size >= 8; size -= 8, bytes += 8)
		word = _mm_crc32_u64(word, load64(bytes));
	for (crc = (uint32_t)word; size; size--)
		crc = _mm_crc32_u8(crc, *bytes++);
	return crc;
}

SSE42 static uint32_t run_sse42(uint32_t crc, const uint8_t *bytes, size_t size)
{
	for (; size >= 3 * LONG_STREAM; size -= 3 * LONG_STREAM, bytes += 3 * LONG_STREAM)
		crc = run_three(crc, bytes, LONG_STREAM, long_shift);
	for (; size >= 3 * SHORT_STREAM; size -= 3 * SHORT_STREAM, bytes += 3 * SHORT_STREAM)
		crc = run_three(crc, bytes, SHORT_STREAM, short_shift);
	return run_one(crc, bytes, size);
}

WIDE static __m512i load512(const uint8_t *bytes)
{
	return _mm512_loadu_si512(bytes);
}

/* The factors of a vector that `words`, a multiple of 8, follow. */
WIDE static __m512i over(size_t words)
{
	return _mm512_load_si512(&factors[MOST_WORDS - 7 - words]);
}

/* A vector folded by the factors, plus `next`. */
WIDE static __m512i fold(__m512i vector, __m512i by, __m512i next)
{
	__m512i high = _mm512_clmulepi64_epi128(vector, by, 0x11);
	__m512i low = _mm512_clmulepi64_epi128(vector, by, 0x00);

	return _mm512_ternarylogic_epi64(low, high, next, 0x96);
}

/* The register after lanes that were all folded to one place. */
WIDE static uint32_t reduce(__m512i sum)
{
	__m256i half =
		_mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
	__m128i lane =
		_mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
	uint64_t crc = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));

	return (uint32_t)_mm_crc32_u64(crc, (uint64_t)_mm_extract_epi64(lane, 1));
}

/*
 * Four vectors go side by side, each folded over 256 bytes at a time. Then they and the vectors
 * that are left are folded over all that follows at once, so that none waits for another.
 */
WIDE static uint32_t run_vpclmulqdq(uint32_t crc, const uint8_t *bytes, size_t size)
{
	__m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc));
	__m512i sum = _mm512_setzero_si512();
	size_t words = size / 64 * 8; /* that are to be folded */

	if (words == 0)
		return run_one(crc, bytes, size);
	if (words >= 32) {
		__m512i a = _mm512_xor_si512(load512(bytes), start), b = load512(bytes + 64);
		__m512i c = load512(bytes + 128), d = load512(bytes + 192);
		__m512i by = _mm512_broadcast_i32x4(
			_mm_load_si128((const __m128i *)&factors[MOST_WORDS - 33]));

		for (bytes += 256, words -= 32; words >= 32; bytes += 256, words -= 32) {
			a = fold(a, by, load512(bytes));
			b = fold(b, by, load512(bytes + 64));
			c = fold(c, by, load512(bytes + 128));
			d = fold(d, by, load512(bytes + 192));
		}
		sum = fold(c, over(words + 8), fold(d, over(words), sum));
		sum = fold(a, over(words + 24), fold(b, over(words + 16), sum));
		start = _mm512_setzero_si512();
	}
	for (; words; bytes += 64) {
		words -= 8;
		sum = fold(_mm512_xor_si512(load512(bytes), start), over(words), sum);
		start = _mm512_setzero_si512();
	}
	return run_one(reduce(sum), bytes, size % 64);
}

static void make_shift(uint32_t table[4][256], size_t size)
{
	uint32_t power = segue_crc32c_power(size);

	for (uint32_t k = 0; k < 4; k++)
		for (uint32_t v = 0; v < 256; v++)
			table[k][v] = multiply(v << 8 * k, power);
}

/* Shifted by one: the product of two reflected words is short of a bit. */
static void make_factors(void)
{
	const uint64_t period = (UINT64_C(1) << 31) - 1; /* x to it is 1: where k is 0, too */

	for (uint64_t k = 0; k <= MOST_WORDS; k++)
		factors[MOST_WORDS - k] = (uint64_t)segue_crc32c_power(period + 8 * k - 4) << 1;
}

static void make_tables(void)
{
	make_slices();
	make_shift(long_shift, LONG_STREAM);
	make_shift(short_shift, SHORT_STREAM);
	make_factors();
}

static int have_sse42(void)
{
	return __builtin_cpu_supports("sse4.2");
}

static int have_vpclmulqdq(void)
{
	return have_sse42() && __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("pclmul") &&
	       __builtin_cpu_supports("vpclmulqdq");
}

#else

static void make_tables(void)
{
	make_slices();
}

#endif

/* Best first. */
static const struct way ways[] = {
#if defined(__x86_64__)
	{"vpclmulqdq", run_vpclmulqdq, have_vpclmulqdq},
	{"sse4.2", run_sse42, have_sse42},
#endif
	{"table", run_table, always},
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static pthread_once_t tables_once = PTHREAD_ONCE_INIT;
static _Atomic(const struct way *) chosen;

/* Not inlined: its calls would cost every segue_crc32c registers to save. */
__attribute__((noinline)) static const struct way *choose(void)
{
	const struct way *way = ways;

	pthread_once(&tables_once, make_tables);
	while (!way->available())
		way++;
	atomic_store_explicit(&chosen, way, memory_order_release);
	return way;
}

static const struct way *current(void)
{
	const struct way *way = atomic_load_explicit(&chosen, memory_order_acquire);

	return way ? way : choose();
}

uint32_t segue_crc32c(uint32_t crc, const void *bytes, size_t size)
{
	return ~current()->run(~crc, bytes, size);
}

const char *segue_crc32c_name(void)
{
	return current()->name;
}

int segue_crc32c_select(const char *name)
{
	choose();
	if (!name)
		return 0;
	for (size_t i = 0; i < WAYS; i++) {
		if (strcmp(ways[i].name, name) != 0)
			continue;
		if (!ways[i].available())
			return segue_fail(
				SEGUE_ENOTFOUND, "this processor cannot do CRC32C by '%s'", name);
		atomic_store_explicit(&chosen, &ways[i], memory_order_release);
		return 0;
	}
	return segue_fail(SEGUE_EINVAL, "'%s' is no way to do CRC32C", name);
}
