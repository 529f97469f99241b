/*
 * CRC32C: slicing by eight; SSE4.2 over three streams; folding with 512-bit carry-less products.
 * The streams are those of Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32
 * Instruction" (Intel, 2011), of any length; the folding is that of "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), with more lanes, with streams
 * beside it, as in Cawley's fast-crc32, and with the instruction for its last steps.
 */
#include "core/crc32c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
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

/*
 * What words of 64 bits are multiplied by to move them over those that follow, by falling distance:
 * factors[MOST_WORDS - k] is x^(64 k - 32), k from 0. A 128-bit lane that k words follow takes two
 * neighbours, k + 1 for its first word and k; the four lanes of a vector take eight. A register
 * that k words follow takes k.
 */
#define MOST_TURNS 64 /* in one block: see fold_beside_streams */
#define MOST_WORDS (8 * MOST_TURNS + 71)
static _Alignas(64) uint64_t factors[MOST_WORDS + 1];

/* clang counts it apart from sse4.2 if its command line does, as zig's does; old gcc has none. */
#ifdef __clang__
#define CRC32 ",crc32"
#else
#define CRC32 ""
#endif
#define SSE42 __attribute__((target("sse4.2,pclmul" CRC32)))
#define WIDE  __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2" CRC32)))

/* Its low word, put into a register of 0, gives what `crc` becomes after `words` of zeros. */
SSE42 static __m128i move(uint64_t crc, size_t words)
{
	__m128i by = _mm_loadl_epi64((const __m128i *)&factors[MOST_WORDS - words]);

	return _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), by, 0x00);
}

SSE42 static uint32_t run_few(uint32_t crc, const uint8_t *bytes, size_t size)
{
	for (; size; size--)
		crc = _mm_crc32_u8(crc, *bytes++);
	return crc;
}

/*
 * The last `size` bytes before `end`, less than a word, of 8 or more: no loop, as its end would be
 * hard to predict. They go as a word that ends with them and begins with zeros, which leave a
 * register of 0 as it is: the register goes to where the bytes are, and past them to the result.
 * Inlined, so that a caller with vectors returns, and does not jump: then their upper halves are
 * cleared.
 */
SSE42 __attribute__((always_inline)) static inline uint32_t run_rest(
	uint64_t crc, const uint8_t *end, size_t size)
{
	if (size == 0)
		return (uint32_t)crc;
	crc ^= load64(end - 8) >> (64 - 8 * size);
	return (uint32_t)(_mm_crc32_u64(0, crc << (64 - 8 * size)) ^ crc >> 8 * size);
}

SSE42 static inline uint32_t run_one(uint64_t crc, const uint8_t *bytes, size_t size)
{
	const uint8_t *end = bytes + size;

	for (; size >= 8; size -= 8, bytes += 8)
		crc = _mm_crc32_u64(crc, load64(bytes));
	return run_rest(crc, end, size);
}

SSE42 static inline uint64_t two_words(uint64_t crc, const uint8_t *bytes)
{
	return _mm_crc32_u64(_mm_crc32_u64(crc, load64(bytes)), load64(bytes + 8));
}

/*
 * Three streams of `words`, an even number, side by side: the instruction takes three cycles, and
 * one starts in each.
 */
SSE42 static uint32_t run_three(uint32_t crc, const uint8_t *bytes, size_t words)
{
	const uint8_t *end = bytes + 8 * words;
	uint64_t a = crc, b = 0, c = 0;
	__m128i moved;

	for (; bytes != end; bytes += 16) {
		a = two_words(a, bytes);
		b = two_words(b, bytes + 8 * words);
		c = two_words(c, bytes + 16 * words);
	}
	moved = _mm_xor_si128(move(a, 2 * words), move(b, words));
	return (uint32_t)(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(moved)) ^ c);
}

SSE42 static uint32_t run_sse42(uint32_t crc, const uint8_t *bytes, size_t size)
{
	if (size < 8)
		return run_few(crc, bytes, size);
	while (size >= 96) {
		size_t words = size / 48 * 2;

		if (words > MOST_WORDS / 2)
			words = MOST_WORDS / 4 * 2;
		crc = run_three(crc, bytes, words);
		bytes += 24 * words;
		size -= 24 * words;
	}
	return run_one(crc, bytes, size);
}

struct vectors {
	__m512i a, b, c, d;
};

WIDE static __m512i load512(const uint8_t *bytes)
{
	return _mm512_loadu_si512(bytes);
}

/* The factors of a vector that `words` follow. */
WIDE static __m512i over(size_t words)
{
	return _mm512_loadu_si512(&factors[MOST_WORDS - 7 - words]);
}

/* A vector folded by the factors, plus `next`. */
WIDE static __m512i fold(__m512i vector, __m512i by, __m512i next)
{
	__m512i high = _mm512_clmulepi64_epi128(vector, by, 0x11);
	__m512i low = _mm512_clmulepi64_epi128(vector, by, 0x00);

	return _mm512_ternarylogic_epi64(low, high, next, 0x96);
}

/* Each over 256 bytes, itself and the others, to those at `bytes`. */
WIDE static inline void fold_turn(struct vectors *v, const uint8_t *bytes)
{
	__m512i by =
		_mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)&factors[MOST_WORDS - 33]));

	v->a = fold(v->a, by, load512(bytes));
	v->b = fold(v->b, by, load512(bytes + 64));
	v->c = fold(v->c, by, load512(bytes + 128));
	v->d = fold(v->d, by, load512(bytes + 192));
}

/* Bytes up to which streams beside the folding cost more than they save. */
#define SHORT 2048

/*
 * Folding keeps the multiplier busy and leaves the instruction free: each turn takes 16 bytes of
 * each of four streams, too. They come after all that the turns fold, 16 * turns bytes each, then
 * `words`. Returns what they come to. With more bytes they would hold up the processors that
 * multiply 512 bits in each cycle.
 */
WIDE static inline __m128i fold_beside_streams(
	struct vectors *v, const uint8_t *bytes, size_t turns, size_t words)
{
	const uint8_t *at = bytes + 256 * turns, *end = at;
	uint64_t a = 0, b = 0, c = 0, d = 0;
	size_t stream = 16 * turns;

	for (; bytes != end; bytes += 256, at += 16) {
		fold_turn(v, bytes);
		a = two_words(a, at);
		b = two_words(b, at + stream);
		c = two_words(c, at + 2 * stream);
		d = two_words(d, at + 3 * stream);
	}
	return _mm_xor_si128(_mm_xor_si128(move(a, words + 6 * turns), move(b, words + 4 * turns)),
		_mm_xor_si128(move(c, words + 2 * turns), move(d, words)));
}

/* The first vector, with the register so far. */
WIDE static inline __m512i first(uint32_t crc, const uint8_t *bytes)
{
	__m512i start = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc));

	return _mm512_xor_si512(load512(bytes), start);
}

WIDE static inline struct vectors begin(uint32_t crc, const uint8_t *bytes)
{
	return (struct vectors){
		first(crc, bytes), load512(bytes + 64), load512(bytes + 128), load512(bytes + 192)};
}

/* The vectors that `words` follow, folded to where those end. */
WIDE static inline __m512i fold_all(const struct vectors *v, size_t words)
{
	__m512i sum = fold(v->d, over(words), _mm512_setzero_si512());

	sum = fold(v->b, over(words + 16), fold(v->c, over(words + 8), sum));
	return fold(v->a, over(words + 24), sum);
}

/* The register after `words` more, where `sum` and `streams` are of the 64 bytes or more before. */
WIDE static inline uint32_t finish(__m512i sum, __m128i streams, const uint8_t *bytes, size_t words)
{
	__m256i half;
	__m128i lane;
	uint64_t crc;

	for (; words >= 8; bytes += 64) {
		words -= 8;
		sum = fold(load512(bytes), over(words), sum);
	}
	if (words) {
		__mmask8 last = (__mmask8)(0xff00 >> words);

		sum = fold(_mm512_maskz_loadu_epi64(last, bytes + 8 * words - 64), over(0), sum);
	}
	half = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
	lane = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
	crc = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
	lane = _mm_xor_si128(_mm_srli_si128(lane, 8), streams);
	return (uint32_t)_mm_crc32_u64(crc, (uint64_t)_mm_cvtsi128_si64(lane));
}

/*
 * Four vectors go side by side, each folded over 256 bytes at a time. Then they and the vectors
 * that are left are folded over all that follows at once, so that none waits for another.
 */
WIDE static uint32_t run_short(uint32_t crc, const uint8_t *bytes, size_t size)
{
	const uint8_t *end = bytes + size;
	size_t words = size / 8;
	__m512i sum;

	if (size < 8)
		return run_few(crc, bytes, size);
	if (size < 64)
		return run_one(crc, bytes, size);
	if (words >= 32) {
		struct vectors v = begin(crc, bytes);

		for (bytes += 256, words -= 32; words >= 32; bytes += 256, words -= 32)
			fold_turn(&v, bytes);
		sum = fold_all(&v, words);
	} else {
		words -= 8;
		sum = fold(first(crc, bytes), over(words), _mm512_setzero_si512());
		bytes += 64;
	}
	return run_rest(finish(sum, _mm_setzero_si128(), bytes, words), end, size % 8);
}

/* Not inlined: its registers to save would cost the short ones. */
__attribute__((noinline)) WIDE static uint32_t run_long(
	uint32_t crc, const uint8_t *bytes, size_t size)
{
	for (size_t done; size > SHORT; size -= done) {
		size_t turns = (size - 256) / 320, words = (size - 256) % 320 / 8;
		struct vectors v = begin(crc, bytes);
		__m128i streams;

		if (turns > MOST_TURNS)
			turns = MOST_TURNS;
		streams = fold_beside_streams(&v, bytes + 256, turns, words);
		done = 256 + 320 * turns;
		crc = finish(fold_all(&v, 8 * turns + words), streams, bytes + done, words);
		done += 8 * words;
		bytes += done;
	}
	return size < 8 ? run_rest(crc, bytes + size, size) : run_short(crc, bytes, size);
}

WIDE static uint32_t run_vpclmulqdq(uint32_t crc, const uint8_t *bytes, size_t size)
{
	return size > SHORT ? run_long(crc, bytes, size) : run_short(crc, bytes, size);
}

/* Shifted by one: the product of two reflected words is short of a bit. */
static void make_factors(void)
{
	const uint64_t period = (UINT64_C(1) << 31) - 1; /* x to it is 1: where k is 0, too */
	uint32_t power = segue_crc32c_power(period - 4);

	for (size_t k = 0; k <= MOST_WORDS; k++) {
		static const uint8_t zeros[8];

		factors[MOST_WORDS - k] = (uint64_t)power << 1;
		power = run_table(power, zeros, sizeof(zeros));
	}
}

static void make_tables(void)
{
	make_slices();
	make_factors();
}

/*
 * Asked of the processor: __builtin_cpu_supports has no answer where the compiler's own library
 * has none, as zig's.
 */
static int have_sse42(void)
{
	const unsigned needed = bit_SSE4_2 | bit_PCLMUL;
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & needed) == needed;
}

/* Whether the system keeps all of the wide registers. */
static int keeps_wide(void)
{
	const unsigned needed = 0xe6; /* SSE, AVX, and the three parts of AVX-512 */
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return (a & needed) == needed;
}

static int have_vpclmulqdq(void)
{
	const unsigned needed = (unsigned)bit_AVX512F | (unsigned)bit_AVX512VL;
	unsigned a, b, c, d;

	return have_sse42() && keeps_wide() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
	       (b & needed) == needed && (c & bit_VPCLMULQDQ);
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
